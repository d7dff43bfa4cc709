"use strict";

// A plain list of the operations in openapi.json.
function create(tag, text = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

const describeType = (schema = {}) => schema.enum ? schema.enum.join(" | ") : schema.type || (schema.anyOf || []).map(describeType).join(" | ") || "object";

fetch("/openapi.json").then((response) => response.json()).then((content) => {
  const main = document.querySelector("main");
  main.className = "operations";
  for (const [path, operations] of Object.entries(content.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      const section = create("section");
      const title = create("h2");
      title.append(create("code", `${method.toUpperCase()} ${path}`));
      section.append(title, create("p", operation.summary));
      const list = create("ul");
      for (const { name, in: place, schema, description = "", required } of operation.parameters || []) {
        const item = create("li");
        item.append(create("code", name), ` (${place}, ${describeType(schema)}${required ? "" : ", optional"}) ${description}`);
        list.append(item);
      }
      if (operation.requestBody) list.append(create("li", `Body: ${Object.keys(operation.requestBody.content).join(" or ")}. ${operation.requestBody.description || ""}`));
      list.append(create("li", `Answers: ${Object.entries(operation.responses).map(([code, answer]) => `${code} ${answer.description}`).join("; ")}`));
      section.append(list);
      main.append(section);
    }
  }
});
