/**
 * Owns the way from a JSON Schema to the fields of a form, and from what was typed back to a value.
 *
 * Called by form.js. It never judges a value: that is the server's part. It refuses only what it cannot send.
 */

import { numberOf, objectOf } from "./notes.js";

export const FIELDS_MAX = 100;
const OPTIONS_MAX = 500;
const REFERENCES_MAX = 8;

/**
 * @typedef {object} Field
 * @property {string} name empty for a schema that is one value
 * @property {string} label
 * @property {"text" | "long" | "number" | "integer" | "boolean" | "choice" | "json"} kind
 * @property {boolean} required
 * @property {boolean} nullable
 * @property {string} description
 * @property {string | boolean} initial as a control shows it
 * @property {{label: string, value: unknown}[]} options of a choice
 * @property {string} hint what the schema says of the value, for a placeholder
 */

/**
 * @param {any} schema JSON Schema; anything else gives one field for text
 * @param {string} [label] of a schema that is one value
 * @returns {Field[]}
 */
export function fieldsOf(schema, label = "Answer") {
  const root = resolve(schema, schema);
  if (root.type !== "object" && root.properties === undefined) return [fieldOf("", root, schema, true, label)];
  const required = Array.isArray(root.required) ? root.required : [];
  return Object.entries(objectOf(root.properties))
    .slice(0, FIELDS_MAX)
    .map(([name, part]) => fieldOf(name, part, schema, required.includes(name), name));
}

/**
 * The value that the typed texts stand for. What is left empty is left out, so that the server's default holds.
 *
 * @param {Field[]} fields
 * @param {Record<string, string | boolean>} typed
 * @param {{strict?: boolean}} [options] `strict` where no server checks: a required field that is empty is an error too
 * @returns {{value: unknown, errors: Record<string, string>}} errors by field
 */
export function valueOf(fields, typed, { strict = false } = {}) {
  /** @type {Record<string, unknown>} */
  const value = {};
  /** @type {Record<string, string>} */
  const errors = Object.create(null); // a field may have any name
  for (const field of fields) {
    try {
      const read = readField(field, own(typed, field.name), strict);
      if (read !== undefined) Object.defineProperty(value, field.name, { value: read, enumerable: true, configurable: true, writable: true });
      else if (strict && field.required) errors[field.name] = "is required";
    } catch (error) {
      errors[field.name] = error instanceof Error ? error.message : String(error);
    }
  }
  const single = fields.length === 1 && fields[0]?.name === "";
  return { value: single ? value[""] : value, errors };
}

/**
 * The field that the server complained of, out of `arguments.count` or `count: is required`.
 *
 * @param {Field[]} fields
 * @param {unknown} place
 * @returns {string | null}
 */
export function fieldAt(fields, place) {
  if (typeof place !== "string") return null;
  const path = place.replace(/^(arguments|response)\.?/, "");
  return fields.find(({ name }) => name !== "" && (path === name || path.startsWith(`${name}.`)))?.name ?? null;
}

/**
 * What `record` itself holds under a name that somebody else has chosen, `constructor` among them.
 *
 * @template T
 * @param {Record<string, T>} record
 * @param {string} name
 * @returns {T | undefined}
 */
export function own(record, name) {
  return Object.hasOwn(record, name) ? record[name] : undefined;
}

/** @param {Field} field @param {string | boolean | undefined} typed undefined when untouched @param {boolean} strict */
function readField(field, typed, strict) {
  const given = typed ?? field.initial;
  if (field.kind === "boolean") return given === "" ? (field.required ? false : undefined) : given;
  if (typeof given === "boolean") return given;
  if (field.kind === "choice") return given === "" ? absent(field) : field.options[Number(given)]?.value;
  if (field.kind === "text" || field.kind === "long") {
    if (given !== "") return given;
    return typed !== undefined && !strict && (field.required || field.initial !== "") ? "" : absent(field);
  }
  const text = given.trim();
  if (text === "") return absent(field);
  if (field.kind === "json") return readJson(text);
  const number = Number(text);
  if (!Number.isFinite(number)) {
    if (strict) throw new Error("is not a number");
    return given; // the server says what is wrong with it
  }
  if (Number.isInteger(number) && !Number.isSafeInteger(number)) throw new Error("larger than a browser can carry exactly");
  return number;
}

/** @param {Field} field */
function absent(field) {
  return field.nullable && field.required ? null : undefined;
}

/** @param {string} text */
function readJson(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`not JSON: ${error instanceof Error ? error.message : error}`);
  }
}

/** @param {string} name @param {any} given @param {any} root @param {boolean} required @param {string} label @returns {Field} */
function fieldOf(name, given, root, required, label) {
  const { schema, nullable } = withoutNull(resolve(given, root), root);
  const options = optionsOf(schema);
  const kind = options.length > 0 ? "choice" : kindOf(schema);
  const description = wordsOf(objectOf(given).description) || wordsOf(schema.description);
  const preset = objectOf(given).default ?? schema.default;
  return { name, label: wordsOf(schema.title) && name === "" ? wordsOf(schema.title) : label, kind, required, nullable, description, options, initial: initialOf(kind, preset, options), hint: hintOf(kind, schema) };
}

/** @param {any} schema @returns {Field["kind"]} */
function kindOf(schema) {
  switch (schema.type) {
    case "string":
      return schema.format === "multiline" || numberOf(schema.maxLength) > 400 ? "long" : "text";
    case "number":
    case "integer":
    case "boolean":
      return schema.type;
    case undefined:
      return Object.keys(schema).some((key) => ["properties", "items", "anyOf", "oneOf", "allOf"].includes(key)) ? "json" : "text";
    default:
      return "json";
  }
}

/** @param {any} schema @returns {{label: string, value: unknown}[]} */
function optionsOf(schema) {
  if (Array.isArray(schema.enum)) {
    const names = Array.isArray(schema.enumNames) ? schema.enumNames : [];
    return schema.enum.slice(0, OPTIONS_MAX).map((/** @type {unknown} */ value, /** @type {number} */ index) => ({ label: wordsOf(names[index]) || wordOf(value), value }));
  }
  if ("const" in schema) return [{ label: wordOf(schema.const), value: schema.const }];
  const parts = Array.isArray(schema.oneOf) ? schema.oneOf : Array.isArray(schema.anyOf) ? schema.anyOf : [];
  if (parts.length === 0 || !parts.every((/** @type {unknown} */ part) => "const" in objectOf(part))) return [];
  return parts.slice(0, OPTIONS_MAX).map((/** @type {any} */ part) => ({ label: wordsOf(part.title) || wordOf(part.const), value: part.const }));
}

/** @param {Field["kind"]} kind @param {unknown} preset @param {{value: unknown}[]} options @returns {string | boolean} */
function initialOf(kind, preset, options) {
  if (preset === undefined || preset === null) return "";
  if (kind === "boolean") return preset === true;
  if (kind === "choice") {
    const index = options.findIndex(({ value }) => JSON.stringify(value) === JSON.stringify(preset));
    return index < 0 ? "" : String(index);
  }
  if (kind === "json") return JSON.stringify(preset, null, 1);
  return wordOf(preset);
}

/** @param {Field["kind"]} kind @param {any} schema */
function hintOf(kind, schema) {
  if (kind === "json") return schema.type === "array" ? "[…] as JSON" : schema.type === "object" ? "{…} as JSON" : "JSON";
  if (kind !== "number" && kind !== "integer") return "";
  const { minimum, maximum } = schema;
  const low = Number.isFinite(minimum) ? `from ${minimum}` : "";
  const high = Number.isFinite(maximum) ? `to ${maximum}` : "";
  return [low, high].filter(Boolean).join(" ");
}

/** What may be null is shown as what it is otherwise. @param {any} schema @param {any} root */
function withoutNull(schema, root) {
  if (Array.isArray(schema.type)) {
    const rest = schema.type.filter((/** @type {unknown} */ type) => type !== "null");
    return { schema: { ...schema, type: rest.length === 1 ? rest[0] : "any" }, nullable: rest.length < schema.type.length };
  }
  for (const key of ["anyOf", "oneOf"]) {
    if (!Array.isArray(schema[key])) continue;
    const rest = schema[key].filter((/** @type {unknown} */ part) => objectOf(part).type !== "null");
    if (rest.length === schema[key].length) continue;
    const { [key]: _dropped, ...outer } = schema;
    return { schema: rest.length === 1 ? { ...resolve(rest[0], root), ...outer } : { ...outer, [key]: rest }, nullable: true };
  }
  return { schema, nullable: false };
}

/** Follow `$ref` inside the same schema, a bounded number of steps. @param {any} schema @param {any} root @returns {any} */
function resolve(schema, root) {
  let found = objectOf(schema);
  for (let step = 0; typeof found.$ref === "string" && step < REFERENCES_MAX; step += 1) {
    /** @type {any} */
    let at = found.$ref.startsWith("#/") ? root : undefined;
    for (const part of found.$ref.slice(2).split("/")) at = Object.hasOwn(objectOf(at), part) ? at[part] : undefined;
    const { $ref: _followed, ...outer } = found;
    found = { ...objectOf(at), ...outer };
  }
  return found;
}

/** @param {unknown} text */
function wordsOf(text) {
  return typeof text === "string" ? text.slice(0, 2000) : "";
}

/** @param {unknown} value */
function wordOf(value) {
  return typeof value === "string" ? value : (JSON.stringify(value) ?? "");
}
