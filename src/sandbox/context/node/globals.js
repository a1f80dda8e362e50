
// Globals of a cell, as in a module.
function cellGlobals() {
  const require = mod.createRequire(path.join(process.cwd(), 'cell.js'));
  const load = (source, options) => {
    source = String(source);
    if (/^\.{0,2}\//.test(source)) source = 'file://' + path.resolve(process.cwd(), source);
    else if (!source.includes(':') && !mod.builtinModules.includes(source)) {
      try { source = 'file://' + require.resolve(source); } catch {}
    }
    return options === undefined ? import(source) : import(source, options);
  };
  load.named = (module, source, name) => {
    if (name in module) return module[name];
    throw new SyntaxError(`The requested module '${source}' does not provide an export named '${name}'`);
  };
  load.meta = {
    get dirname() { return process.cwd(); },
    get filename() { return path.join(process.cwd(), 'cell.js'); },
    get url() { return url.pathToFileURL(load.meta.filename).href; },
    resolve: source => {
      if (/^[.\/]/.test(source)) return new URL(source, load.meta.url).href;
      const found = require.resolve(source);
      return path.isAbsolute(found) ? url.pathToFileURL(found).href : `node:${found.replace(/^node:/, '')}`;
    },
  };
  const module = {exports: {}};
  for (const [name, value] of Object.entries({require, module, exports: module.exports, display})) {
    Object.defineProperty(globalThis, name, {value, writable: true, configurable: true, enumerable: false});
  }
  Object.defineProperty(globalThis, '__import', {value: load, configurable: true});
  Object.defineProperty(globalThis, 'babelHelpers', {value: {decorate, decorateParam}, configurable: true});
}

// What TypeScript's decorators become: calls of these, as tsc has them for `experimentalDecorators`.
function decorate(decorators, target, key, descriptor) {
  const isClass = arguments.length < 3, hasDescriptor = arguments.length > 3;
  let made = isClass ? target : descriptor === null ? Object.getOwnPropertyDescriptor(target, key) : descriptor;
  if (typeof Reflect === 'object' && typeof Reflect.decorate === 'function') {
    made = Reflect.decorate(decorators, target, key, descriptor === null ? made : descriptor);
  } else {
    for (const one of decorators.slice().reverse()) {
      if (!one) continue;
      made = (isClass ? one(made) : hasDescriptor ? one(target, key, made) : one(target, key)) || made;
    }
  }
  if (hasDescriptor && made) Object.defineProperty(target, key, made);
  return made;
}

function decorateParam(index, decorator) {
  return (target, key) => decorator(target, key, index);
}
