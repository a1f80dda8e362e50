// Names that are declared again as something else. V8's console lets `let` follow `let` and `const` follow `const`, and
// refuses `let` after `const`, functions after either, and so on, before any of the cell has run. Such a name is moved:
// from then on it is a property of an object of ours, and cells that speak of it are rewritten to say so. Cells without
// such a name are left alone. Functions of earlier cells keep what they have seen.
//
// The parser is the one that node brings for its own console. Lines stay where they are.
const moved = new Map();
const home = Object.create(null);
Object.defineProperty(globalThis, '__stockade_names', {value: Object.freeze({
  home,
  // A function that is called by its name has no `this`.
  get: name => home[name],
  // What is declared is assigned, also where it was a constant before.
  open: name => { delete home[name]; },
  // `var` keeps the value that is there, which may be a constant's.
  vary(name) {
    if (name in home) Object.defineProperty(home, name, {value: home[name], writable: true, configurable: true, enumerable: true});
  },
  // Whoever assigns to a constant hears what V8 would say.
  seal(name) {
    const value = home[name];
    Object.defineProperty(home, name, {configurable: true, enumerable: true, get: () => value,
      set() { throw new TypeError('Assignment to constant variable.'); }});
  },
  name(name, made) {
    Object.defineProperty(made, 'name', {value: name, configurable: true});
    home[name] = made;
  },
})});

const CONFLICT = /^Identifier '(.+)' has already been declared$/, CONFLICTS_MAX = 100;
const HOME = '__stockade_names.home.', FUNCTION = '__stockade_function_';

function parser() {
  try { return require('internal/deps/acorn/acorn/dist/acorn'); } catch { return null; }
}

// The code as it can be run, or null when it speaks of no name that was moved.
function withMoved(code) {
  let found = false;
  for (const [name, word] of moved) if (code.includes(name) && word.test(code)) found = true;
  if (!found) return null;
  let tree;
  try {
    tree = parser().parse(code, {ecmaVersion: 'latest', allowAwaitOutsideFunction: true, allowHashBang: true});
  } catch {
    // What is wrong with it is V8's to say.
    return null;
  }
  return new Mover(code).move(tree);
}

function move(name) {
  if (moved.has(name)) return;
  const word = name.replace(/[$]/g, '\\$');
  moved.set(name, new RegExp(`(?<![\\w$])${word}(?![\\w$])`, 'u'));
}

const isFunction = node => /Function/.test(node.type);

function* childrenOf(node) {
  for (const value of Object.values(node)) {
    for (const child of Array.isArray(value) ? value : [value]) if (child && typeof child.type === 'string') yield child;
  }
}

// The identifiers that a pattern declares.
function* declared(pattern) {
  if (!pattern) return;
  if (pattern.type === 'Identifier') yield pattern;
  else if (pattern.type === 'AssignmentPattern') yield* declared(pattern.left);
  else if (pattern.type === 'RestElement') yield* declared(pattern.argument);
  else if (pattern.type === 'ArrayPattern') for (const part of pattern.elements) yield* declared(part);
  else if (pattern.type === 'ObjectPattern') for (const part of pattern.properties) yield* declared(part.value ?? part.argument);
}

const namesOf = declaration => declaration.declarations.flatMap(one => [...declared(one.id)].map(id => id.name));

// `var` of these statements, wherever it stands in them, as it belongs to the function around.
function* vars(node) {
  if (!node || isFunction(node)) return;
  if (node.type === 'VariableDeclaration' && node.kind === 'var') yield node;
  for (const child of childrenOf(node)) yield* vars(child);
}

// What statements declare for themselves alone.
function* lexical(statements) {
  for (const one of statements) {
    if (one.type === 'VariableDeclaration' && one.kind !== 'var') yield* namesOf(one);
    else if (/^(Class|Function)Declaration$/.test(one.type)) yield one.id.name;
  }
}

class Mover {
  constructor(code) {
    this.code = code;
    this.edits = [];
    this.first = '';
    // Declarations of the cell itself with a moved name.
    this.own = new Set();
  }

  replace(from, to, text) {
    this.edits.push({from, to, text});
  }

  move(tree) {
    const lets = tree.body.filter(one => one.type === 'VariableDeclaration' && one.kind !== 'var');
    const all = [...new Set([...lets, ...tree.body.flatMap(one => [...vars(one)])])];
    // What is declared together is moved together.
    for (let before = -1; before !== moved.size;) {
      before = moved.size;
      for (const one of all) if (namesOf(one).some(name => moved.has(name))) namesOf(one).forEach(move);
    }
    for (const one of all) {
      if (!namesOf(one).some(name => moved.has(name))) continue;
      this.own.add(one);
      if (one.kind === 'var') for (const name of namesOf(one)) this.first += `__stockade_names.vary('${name}');`;
    }
    for (const one of tree.body) {
      if (!/^(Class|Function)Declaration$/.test(one.type) || !moved.has(one.id.name)) continue;
      this.own.add(one);
      this.first += `__stockade_names.open('${one.id.name}');`;
      if (one.type === 'FunctionDeclaration') this.first += `__stockade_names.name('${one.id.name}', ${FUNCTION}${one.id.name});`;
    }
    for (const one of tree.body) this.visit(one, new Set());
    this.edits.sort((a, b) => a.from - b.from || a.to - b.to);
    let text = this.first, at = 0;
    for (const {from, to, text: made} of this.edits) {
      text += this.code.slice(at, from) + made;
      at = to;
    }
    return text + this.code.slice(at);
  }

  // Names that are declared between the cell and here are not the cell's.
  visit(node, hidden) {
    switch (node.type) {
      case 'Identifier':
        if (moved.has(node.name) && !hidden.has(node.name)) this.replace(node.start, node.end, HOME + node.name);
        return;
      case 'CallExpression':
      case 'TaggedTemplateExpression': {
        const called = node.callee ?? node.tag;
        if (called.type !== 'Identifier' || !moved.has(called.name) || hidden.has(called.name)) break;
        this.replace(called.start, called.end, `__stockade_names.get('${called.name}')`);
        for (const part of node.arguments ?? [node.quasi]) this.visit(part, hidden);
        return;
      }
      case 'MemberExpression':
        this.visit(node.object, hidden);
        if (node.computed) this.visit(node.property, hidden);
        return;
      case 'Property':
        if (node.computed) this.visit(node.key, hidden);
        // In a pattern as well: `{a}` and `{a = 1}` say both what is taken and where it goes.
        if (node.shorthand) {
          const id = node.value.type === 'AssignmentPattern' ? node.value.left : node.value;
          if (moved.has(id.name) && !hidden.has(id.name)) this.replace(id.start, id.start, `${id.name}: `);
        }
        this.visit(node.value, hidden);
        return;
      case 'MethodDefinition':
      case 'PropertyDefinition':
        if (node.computed) this.visit(node.key, hidden);
        if (node.value) this.visit(node.value, hidden);
        return;
      case 'LabeledStatement':
        this.visit(node.body, hidden);
        return;
      case 'BreakStatement':
      case 'ContinueStatement':
      case 'MetaProperty':
        return;
      case 'VariableDeclaration':
        return this.own.has(node) ? this.declare(node, hidden) : this.descend(node, hidden);
      case 'ForStatement':
        if (!node.init || !this.own.has(node.init)) break;
        this.declare(node.init, hidden, '');
        for (const part of [node.test, node.update, node.body]) if (part) this.visit(part, hidden);
        return;
      case 'ForInStatement':
      case 'ForOfStatement':
        if (this.own.has(node.left)) return this.eachOf(node, hidden);
        break;
    }
    if (isFunction(node) || node.type.startsWith('Class')) return this.enter(node, hidden);
    this.descend(node, this.within(node, hidden));
  }

  descend(node, hidden) {
    for (const child of childrenOf(node)) this.visit(child, hidden);
  }

  within(node, hidden) {
    const inner = node.type === 'BlockStatement' || node.type === 'StaticBlock' ? [...lexical(node.body)]
      : node.type === 'SwitchStatement' ? node.cases.flatMap(one => [...lexical(one.consequent)])
      : node.type === 'CatchClause' ? [...declared(node.param)].map(id => id.name)
      : /^For/.test(node.type) ? [...lexical([node.init ?? node.left].filter(Boolean))] : [];
    return inner.length ? new Set([...hidden, ...inner]) : hidden;
  }

  enter(node, hidden) {
    if (node.type.startsWith('Class')) {
      if (this.own.has(node)) {
        this.replace(node.start, node.start, `void (${HOME}${node.id.name} = `);
        this.replace(node.end, node.end, ');');
      }
      // Inside of it its name is its own.
      const inner = node.id && !this.own.has(node) ? new Set([...hidden, node.id.name]) : hidden;
      if (node.superClass) this.visit(node.superClass, inner);
      return this.descend(node.body, inner);
    }
    if (this.own.has(node)) this.replace(node.id.start, node.id.end, FUNCTION + node.id.name);
    const inner = new Set(hidden);
    if (node.id && node.type === 'FunctionExpression') inner.add(node.id.name);
    for (const id of node.params.flatMap(one => [...declared(one)])) inner.add(id.name);
    for (const one of vars(node.body)) namesOf(one).forEach(name => inner.add(name));
    if (node.type !== 'ArrowFunctionExpression') inner.add('arguments');
    for (const child of [...node.params, node.body]) this.visit(child, inner);
  }

  // `let a = 1, {b} = c` becomes assignments, whose value is nobody's.
  declare(node, hidden, end = ';') {
    const names = namesOf(node), constant = node.kind === 'const';
    const parts = node.declarations;
    const open = node.kind === 'var' ? '' : names.map(name => `__stockade_names.open('${name}'), `).join('');
    this.replace(node.start, parts[0].start, `void (${open}${parts[0].id.type === 'ObjectPattern' ? '(' : ''}`);
    parts.forEach((one, index) => {
      if (index > 0) this.replace(one.start, one.start, one.id.type === 'ObjectPattern' ? '(' : '');
      this.visit(one.id, hidden);
      if (one.init) this.visit(one.init, hidden);
      // A `var` without a value keeps the one that it has.
      else if (node.kind !== 'var') this.replace(one.end, one.end, ' = undefined');
      if (one.id.type === 'ObjectPattern') this.replace(one.end, one.end, ')');
    });
    const seal = constant ? names.map(name => `, __stockade_names.seal('${name}')`).join('') : '';
    const last = this.code[node.end - 1] === ';' ? node.end - 1 : node.end;
    this.replace(last, node.end, `${seal})${end}`);
  }

  // `for (var a of all)`, `for (var a in all)`.
  eachOf(node, hidden) {
    this.replace(node.left.start, node.left.declarations[0].start, '');
    this.visit(node.left.declarations[0].id, hidden);
    this.visit(node.right, hidden);
    this.visit(node.body, hidden);
  }
}

