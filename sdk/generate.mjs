// Writes the types of both clients from the API's own description, tests/openapi.json.
//
//     node sdk/generate.mjs            writes typescript/src/api.ts and python/src/stockade_sandbox/api.py
//     node sdk/generate.mjs --check    fails when they differ from what would be written
//
// Why not one of the generators there are: each knows one of the two languages, and what is needed of OpenAPI is little.
import { readFileSync, writeFileSync } from 'node:fs';

const here = new URL('./', import.meta.url);
const spec = JSON.parse(readFileSync(new URL('../tests/openapi.json', here), 'utf8'));
const schemas = spec.components.schemas;

const words = (text) => (text ?? '').split('\n').map((line) => line.trim()).join(' ').replaceAll('*/', '* /').trim();
const nameOf = (schema) => schema.$ref?.split('/').at(-1);
/** Beside a type they say which values of it there may be. */
const alternatives = (schema) => (schema.type ? undefined : schema.oneOf ?? schema.anyOf);
const isObject = (schema) => schema.type === 'object' && schema.properties;

/** A schema as a type of TypeScript. */
function ts(schema) {
  if (schema === true || schema === undefined || Object.keys(schema).length === 0) return 'unknown';
  if (schema.$ref) return nameOf(schema);
  if (alternatives(schema)) return alternatives(schema).map((one) => wrapped(ts(one))).join(' | ');
  if (schema.allOf) return schema.allOf.map((one) => wrapped(ts(one))).join(' & ');
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' | ');
  const types = [schema.type].flat().map((type) => {
    if (type === 'integer') return 'number';
    if (type === 'array') return `${wrapped(ts(schema.items))}[]`;
    if (type !== 'object') return type ?? 'unknown';
    if (schema.properties) {
      const required = schema.required ?? [];
      const fields = Object.entries(schema.properties);
      return `{ ${fields.map(([name, value]) => `${name}${required.includes(name) ? '' : '?'}: ${ts(value)}`).join('; ')} }`;
    }
    const values = schema.additionalProperties;
    return values === false ? 'Record<string, never>' : `Record<string, ${values && values !== true ? ts(values) : 'unknown'}>`;
  });
  return [...new Set(types)].join(' | ');
}

const wrapped = (type) => (/[|&]/.test(type) && !type.startsWith('{') ? `(${type})` : type);

function tsDefinition(name, schema) {
  const lines = schema.description ? [`/** ${words(schema.description)} */`] : [];
  if (!isObject(schema)) return [...lines, `export type ${name} = ${ts(schema)};`, ''];
  lines.push(`export interface ${name} {`);
  for (const [field, value] of Object.entries(schema.properties)) {
    if (value.description) lines.push(`  /** ${words(value.description)} */`);
    lines.push(`  ${field}${schema.required?.includes(field) ? '' : '?'}: ${ts(value)};`);
  }
  return [...lines, '}', ''];
}

/** Every operation, with what it takes and gives. */
const operations = Object.entries(spec.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => {
    const parameters = operation.parameters ?? [];
    const success = Object.entries(operation.responses).filter(([status]) => status.startsWith('2'));
    const json = success.map(([, response]) => response.content?.['application/json']?.schema).filter(Boolean);
    return {
      id: operation.operationId,
      method: method.toUpperCase(),
      path,
      summary: operation.summary,
      inPath: parameters.filter((one) => one.in === 'path'),
      query: parameters.filter((one) => one.in === 'query'),
      body: operation.requestBody?.content?.['application/json']?.schema,
      bytes: Object.keys(operation.requestBody?.content ?? {}).find((type) => type !== 'application/json'),
      answer: [...new Map(json.map((schema) => [JSON.stringify(schema), schema])).values()],
    };
  }),
);

function typescript() {
  const fields = (list) => `{ ${list.map((one) => `${one.name}${one.required ? '' : '?'}: ${ts(one.schema)}`).join('; ')} }`;
  const lines = [
    '// Written by sdk/generate.mjs from tests/openapi.json. Change that and run it again.',
    '',
    ...Object.entries(schemas).flatMap(([name, schema]) => tsDefinition(name, schema)),
    '/** Method and path of every operation. */',
    'export const operations = {',
    ...operations.map((one) => `  ${one.id}: ['${one.method}', '${one.path}'],`),
    '} as const;',
    '',
    '/** What every operation takes and gives. */',
    'export interface Operations {',
    ...operations.flatMap((one) => [
      `  /** ${words(one.summary)} */`,
      `  ${one.id}: {`,
      `    path: ${one.inPath.length ? fields(one.inPath) : 'Record<never, never>'};`,
      `    query: ${one.query.length ? fields(one.query) : 'Record<never, never>'};`,
      `    body: ${one.body ? ts(one.body) : 'undefined'};`,
      `    answer: ${one.answer.length ? one.answer.map(ts).join(' | ') : 'undefined'};`,
      '  };',
    ]),
    '}',
    '',
  ];
  return lines.join('\n');
}

/** A schema as a type of Python; names in quotes, because some are defined later. */
function py(schema) {
  if (schema === true || schema === undefined || Object.keys(schema).length === 0) return 'Any';
  if (schema.$ref) return `"${nameOf(schema)}"`;
  if (alternatives(schema)) return union(alternatives(schema).map(py));
  if (schema.enum) return `Literal[${schema.enum.map((value) => JSON.stringify(value)).join(', ')}]`;
  if (schema.allOf) return 'dict[str, Any]';
  return union([schema.type].flat().map((type) => {
    switch (type) {
      case 'integer': return 'int';
      case 'number': return 'float';
      case 'boolean': return 'bool';
      case 'string': return 'str';
      case 'null': return 'None';
      case 'array': return `list[${py(schema.items)}]`;
      default: {
        const values = schema.additionalProperties;
        return `dict[str, ${values && values !== true ? py(values) : 'Any'}]`;
      }
    }
  }));
}

function union(types) {
  const distinct = [...new Set(types)];
  return distinct.length === 1 ? distinct[0] : `Union[${distinct.join(', ')}]`;
}

/** The fields of an object, those of the parts of an `allOf` too. */
function fieldsOf(schema) {
  const parts = schema.$ref ? [schemas[nameOf(schema)]] : schema.type ? undefined : schema.allOf;
  if (parts) return parts.flatMap(fieldsOf);
  const required = schema.required ?? [];
  return Object.entries(schema.properties ?? {}).map(([name, value]) => [name, py(value), required.includes(name)]);
}

function pyDefinition(name, schema) {
  if (!isObject(schema) && !schema.allOf) return [`${name} = ${py(schema)}`, ''];
  const fields = fieldsOf(schema).map(([field, type, required]) => `        "${field}": ${required ? type : `NotRequired[${type}]`},`);
  return [`${name} = TypedDict(`, `    "${name}",`, '    {', ...fields, '    },', ')', ''];
}

/** Schemas in an order in which each alias comes after what it names; objects may name what comes later. */
function ordered() {
  const done = [];
  const visit = (name) => {
    if (done.includes(name)) return;
    const schema = schemas[name];
    if (!isObject(schema)) [...JSON.stringify(schema).matchAll(/schemas\/(\w+)"/g)].forEach(([, inner]) => visit(inner));
    if (!done.includes(name)) done.push(name);
  };
  Object.keys(schemas).forEach(visit);
  return done;
}

const pySet = (names) => (names.length ? `{${names.map((name) => `"${name}"`).join(', ')}}` : '');

function python() {
  const lines = [
    '"""Written by sdk/generate.mjs from tests/openapi.json. Change that and run it again."""',
    '',
    '# ruff: noqa: E501',
    'from __future__ import annotations',
    '',
    'from typing import Any, Literal, TypedDict, Union',
    '',
    'from typing_extensions import NotRequired',
    '',
    ...ordered().flatMap((name) => pyDefinition(name, schemas[name])),
    '#: Method and path of every operation.',
    'OPERATIONS: dict[str, tuple[str, str]] = {',
    ...operations.map((one) => `    "${one.id}": ("${one.method}", "${one.path}"),`),
    '}',
    '',
    '#: The query parameters that every operation takes.',
    'QUERIES: dict[str, frozenset[str]] = {',
    ...operations.map((one) => `    "${one.id}": frozenset(${pySet(one.query.map((field) => field.name))}),`),
    '}',
    '',
    `Operation = Literal[${operations.map((one) => `"${one.id}"`).join(', ')}]`,
    '',
  ];
  return lines.join('\n');
}

let drifted = false;
for (const [path, text] of [['typescript/src/api.ts', typescript()], ['python/src/stockade_sandbox/api.py', python()]]) {
  const file = new URL(path, here);
  if (!process.argv.includes('--check')) {
    writeFileSync(file, text);
    continue;
  }
  if (readFileSync(file, 'utf8') !== text) {
    console.error(`sdk/${path} is not what tests/openapi.json says: run node sdk/generate.mjs`);
    drifted = true;
  }
}
process.exitCode = drifted ? 1 : 0;
