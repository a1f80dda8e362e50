//! Cells of JavaScript and TypeScript, as the console of an inspector takes them: without types, without static
//! imports, without exports.
//!
//! A stranger's text is parsed here by a large parser. That is why it is done by a worker, with the rights of the
//! code that is going to run anyway: whatever it makes the parser do, it could have done itself.
//!
//! `import a, {b as c} from "m"` becomes a `var` of what the interpreter's own `__import("m")` gives, so that names can
//! be imported again, and `__import.named` of one name, which knows what a module does not have; `import(…)` calls
//! `__import` too, because the console's own has no file to resolve names from.
//!
//! Lines stay where they are, but for TypeScript's, which end in a source map (ECMA-426): by that the interpreter names
//! the places of the cell as it was written.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;

use oxc_allocator::{Allocator, TakeIn as _};
use oxc_ast::ast::{
    Argument, ExportAllDeclaration, ExportDefaultDeclaration, ExportDefaultDeclarationKind,
    ExportNamedDeclaration, Expression, IdentifierReference, ImportAttributeKey, ImportDeclaration,
    ImportDeclarationSpecifier, ImportExpression, MetaProperty, ModuleExportName, Program, Statement,
    WithClause,
};
use oxc_ast_visit::{Visit, walk};
use oxc_codegen::{Codegen, CodegenOptions};
use oxc_diagnostics::OxcDiagnostic;
use oxc_parser::Parser;
use oxc_semantic::{Scoping, SemanticBuilder};
use oxc_span::{GetSpan, SourceType};
use oxc_transformer::{HelperLoaderMode, TransformOptions, Transformer};

use crate::limits::JSON_BODY_BYTES_MAX;
use crate::sys::Errno;
use crate::wire::worker::{Answer, Failure};

/// Bytes of a message about a syntax error.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Bytes of a cell that gets a source map, which is longer than the cell.
const MAPPED_BYTES_MAX: usize = 1024 * 1024;

/// Rewrites the cell in a memory file, in place.
pub(super) fn rewrite(file: &OwnedFd, typescript: bool) -> Result<Answer, Failure> {
    let source = String::from_utf8(read_all(file)?).map_err(|_| Errno::ILSEQ)?;
    match javascript(&source, typescript) {
        Ok(text) => {
            rustix::fs::ftruncate(file, 0)?;
            write_all(file, text.as_bytes())?;
            Ok(Answer::Done)
        }
        Err(answer) => Ok(answer),
    }
}

fn read_all(file: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match rustix::io::pread(file, &mut chunk, bytes.len() as u64)? {
            0 => return Ok(bytes),
            count => bytes.extend_from_slice(&chunk[..count]),
        }
        if bytes.len() > JSON_BODY_BYTES_MAX {
            return Err(Errno::TOOBIG);
        }
    }
}

fn write_all(file: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    let mut written = 0;
    while written < bytes.len() {
        written += rustix::io::pwrite(file, &bytes[written..], written as u64)?;
    }
    Ok(())
}

/// A cell that the console takes, or what is wrong with it.
fn javascript(source: &str, typescript: bool) -> Result<String, Answer> {
    if !typescript {
        return without_imports(source, &HashSet::new());
    }
    let (text, types) = without_types(source)?;
    without_imports(&text, &types)
}

/// The rest of a cell, and what it imports and uses as types only: a module need not have those.
fn without_types(source: &str) -> Result<(String, HashSet<String>), Answer> {
    let allocator = Allocator::default();
    let mut parsed = Parser::new(&allocator, source, SourceType::ts().with_module(true)).parse();
    if let Some(error) = parsed.errors.first() {
        // `<T>x` is a type here and an element there: elements are looked for where there is none of the former.
        let with_elements = Parser::new(&allocator, source, SourceType::tsx().with_module(true)).parse();
        if with_elements.errors.first().is_none_or(|other| place_of(other) > place_of(error)) {
            parsed = with_elements;
        }
    }
    if let Some(error) = parsed.errors.first() {
        return Err(wrong(source, error));
    }
    let mut program = parsed.program;
    let mut contexts = Contexts::default();
    contexts.visit_program(&program);
    if let Some(at) = contexts.first {
        return Err(refused(source, at, STANDARD_DECORATORS));
    }
    let enums = enums(&program);
    let scoping = SemanticBuilder::new().with_enum_eval(true).build(&program).semantic.into_scoping();
    let types = types(&program, &scoping);
    let mut options = TransformOptions::default();
    // What one cell imports the next one may use.
    options.typescript.only_remove_type_imports = true;
    options.decorator.legacy = true;
    // The interpreter has the two functions that this needs.
    options.helper_loader.mode = HelperLoaderMode::External;
    let path = Path::new("cell.ts");
    let made = Transformer::new(&allocator, path, &options).build_with_scoping(scoping, &mut program);
    if let Some(error) = made.errors.first() {
        return Err(wrong(source, error));
    }
    begin_enums(&allocator, &mut program, &enums);
    let source_map_path = (source.len() <= MAPPED_BYTES_MAX).then(|| path.to_owned());
    let made = Codegen::new().with_options(CodegenOptions { source_map_path, ..Default::default() });
    let made = made.build(&program);
    let Some(mut map) = made.map else { return Ok((made.code, types)) };
    // Whoever reads it has the cell.
    map.set_source_contents(Vec::new());
    Ok((format!("{}\n//# sourceMappingURL={}", made.code, map.to_data_url()), types))
}

/// What a cell imports and then uses as types only.
fn types(program: &Program<'_>, scoping: &Scoping) -> HashSet<String> {
    let imports = program.body.iter().filter_map(|statement| match statement {
        Statement::ImportDeclaration(import) => import.specifiers.as_ref(),
        _ => None,
    });
    let bindings = imports.flatten().map(ImportDeclarationSpecifier::local);
    let types = bindings.filter(|binding| {
        let mut uses = scoping.get_resolved_references(binding.symbol_id()).peekable();
        uses.peek().is_some() && uses.all(|used| !used.is_value())
    });
    types.map(|binding| binding.name.to_string()).collect()
}

/// Names of the enums that a cell declares for all others.
fn enums(program: &Program<'_>) -> HashSet<String> {
    let names = program.body.iter().filter_map(|statement| match statement {
        Statement::TSEnumDeclaration(one) => Some(one.id.name.to_string()),
        _ => None,
    });
    names.collect()
}

/// An enum becomes `var E = function(E) {…}(E || {})`, which would add to one of an earlier cell. The first of a cell
/// begins anew; what the same cell adds to it is an assignment.
fn begin_enums<'a>(allocator: &'a Allocator, program: &mut Program<'a>, enums: &HashSet<String>) {
    for statement in &mut program.body {
        let Statement::VariableDeclaration(variables) = statement else { continue };
        for variable in &mut variables.declarations {
            let is_enum = variable.id.get_identifier_name().is_some_and(|name| enums.contains(name.as_str()));
            let Some(Expression::CallExpression(call)) = variable.init.as_mut().filter(|_| is_enum) else {
                continue;
            };
            if let Some(Argument::LogicalExpression(or)) = call.arguments.first_mut() {
                let empty = or.right.take_in(allocator);
                call.arguments[0] = Argument::from(empty);
            }
        }
    }
}

/// The two kinds of decorators are called with different things, and the transformer has the old one.
const STANDARD_DECORATORS: &str = "decorators are those of TypeScript's `experimentalDecorators`, which are called with \
                                   (target, key, descriptor): standard ones, which get a context, are not supported";

/// Looks for what only a standard decorator has.
#[derive(Default)]
struct Contexts {
    first: Option<usize>,
}

impl<'a> Visit<'a> for Contexts {
    fn visit_identifier_reference(&mut self, name: &IdentifierReference<'a>) {
        if name.name.ends_with("DecoratorContext") {
            self.first.get_or_insert(name.span.start as usize);
        }
    }
}

fn without_imports(source: &str, types: &HashSet<String>) -> Result<String, Answer> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, source, SourceType::mjs()).parse();
    if let Some(error) = parsed.errors.first() {
        return Err(wrong(source, error));
    }
    let mut edits = Edits { source, types, edits: Vec::new() };
    edits.visit_program(&parsed.program);
    Ok(edits.apply())
}

fn wrong(source: &str, error: &OxcDiagnostic) -> Answer {
    refused(source, place_of(error), &error.message)
}

fn place_of(error: &OxcDiagnostic) -> usize {
    error.labels.as_ref().and_then(|labels| labels.first()).map_or(0, |label| label.offset())
}

fn refused(source: &str, at: usize, message: &str) -> Answer {
    let before = source.get(..at.min(source.len())).unwrap_or_default();
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let mut message = message.to_owned();
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Answer::SyntaxError { message, line: number(line), column: number(column) }
}

/// Parts of a source and what takes their place.
struct Edits<'s> {
    source: &'s str,
    types: &'s HashSet<String>,
    edits: Vec<(usize, usize, String)>,
}

impl Edits<'_> {
    fn replace(&mut self, from: u32, to: u32, text: String) {
        self.edits.push((from as usize, to as usize, text));
    }

    fn apply(mut self) -> String {
        self.edits.sort_by_key(|(from, _, _)| *from);
        let (mut text, mut at) = (String::with_capacity(self.source.len()), 0);
        for (from, to, new) in self.edits {
            text.push_str(self.source.get(at..from).unwrap_or_default());
            text.push_str(&new);
            at = to.max(at);
        }
        text.push_str(self.source.get(at..).unwrap_or_default());
        text
    }
}

impl<'a> Visit<'a> for Edits<'_> {
    fn visit_import_declaration(&mut self, import: &ImportDeclaration<'a>) {
        let whole = self.source.get(import.span.start as usize..import.span.end as usize).unwrap_or_default();
        let lines = "\n".repeat(whole.matches('\n').count());
        let attributes = import.with_clause.as_deref().map(attributes).unwrap_or_default();
        let source = quoted(&import.source.value);
        let module = format!("await __import({source}{attributes})");
        let names = import.specifiers.iter().flatten();
        let names: Vec<String> = names.map(|one| binding(one, &module, &source, self.types)).collect();
        // What it gives is no value of the cell.
        let text = if names.is_empty() { format!("void {module};") } else { names.concat() };
        // The lines after it keep their numbers.
        self.replace(import.span.start, import.span.end, text + &lines);
    }

    fn visit_import_expression(&mut self, import: &ImportExpression<'a>) {
        let start = import.span.start;
        self.replace(start, start + 6, "__import".to_owned());
        walk::walk_import_expression(self, import);
    }

    fn visit_meta_property(&mut self, meta: &MetaProperty<'a>) {
        if meta.meta.name == "import" {
            self.replace(meta.span.start, meta.span.end, "__import.meta".to_owned());
        }
    }

    fn visit_export_default_declaration(&mut self, export: &ExportDefaultDeclaration<'a>) {
        let named = match &export.declaration {
            ExportDefaultDeclarationKind::FunctionDeclaration(function) => function.id.is_some(),
            ExportDefaultDeclarationKind::ClassDeclaration(class) => class.id.is_some(),
            _ => false,
        };
        let span = export.declaration.span();
        // An object or a function without a name is no statement.
        self.replace(export.span.start, span.start, if named { "" } else { "(" }.to_owned());
        if !named {
            self.replace(span.end, span.end, ")".to_owned());
        }
        walk::walk_export_default_declaration(self, export);
    }

    fn visit_export_all_declaration(&mut self, export: &ExportAllDeclaration<'a>) {
        self.replace(export.span.start, export.span.end, String::new());
    }

    fn visit_export_named_declaration(&mut self, export: &ExportNamedDeclaration<'a>) {
        match &export.declaration {
            Some(declaration) => self.replace(export.span.start, declaration.span().start, String::new()),
            None => self.replace(export.span.start, export.span.end, String::new()),
        }
        walk::walk_export_named_declaration(self, export);
    }
}

fn binding(
    specifier: &ImportDeclarationSpecifier<'_>,
    module: &str,
    source: &str,
    types: &HashSet<String>,
) -> String {
    match specifier {
        // As node does for modules that are not ES modules: what there is, if there is no default.
        ImportDeclarationSpecifier::ImportDefaultSpecifier(one) => {
            format!("var {} = (m => 'default' in m ? m.default : m)({module});", one.local.name)
        }
        ImportDeclarationSpecifier::ImportNamespaceSpecifier(one) => {
            format!("var {} = {module};", one.local.name)
        }
        ImportDeclarationSpecifier::ImportSpecifier(one) => {
            let imported = match &one.imported {
                ModuleExportName::IdentifierName(name) => name.name.to_string(),
                ModuleExportName::IdentifierReference(name) => name.name.to_string(),
                ModuleExportName::StringLiteral(text) => text.value.to_string(),
            };
            let (local, imported) = (&one.local.name, quoted(&imported));
            if types.contains(local.as_str()) {
                format!("var {local} = ({module})[{imported}];")
            } else {
                format!("var {local} = __import.named({module}, {source}, {imported});")
            }
        }
    }
}

/// What an import says beside its module (`with {type: "json"}`), as the second argument of a call.
fn attributes(clause: &WithClause<'_>) -> String {
    let entries = clause.with_entries.iter().map(|entry| {
        let key = match &entry.key {
            ImportAttributeKey::Identifier(name) => quoted(&name.name),
            ImportAttributeKey::StringLiteral(text) => quoted(&text.value),
        };
        format!("{key}: {}", quoted(&entry.value.value))
    });
    format!(", {{with: {{{}}}}}", entries.collect::<Vec<_>>().join(", "))
}

/// As a string of JavaScript. JSON is one (ECMA-262, since 2019).
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn js(source: &str) -> String {
        javascript(source, false).expect("javascript")
    }

    fn ts(source: &str) -> String {
        javascript(source, true).expect("typescript")
    }

    #[test]
    fn imports_become_variables_and_keep_their_lines() {
        assert_eq!(
            js("import fs, {readFile as rf} from 'fs'\n1"),
            "var fs = (m => 'default' in m ? m.default : m)(await __import(\"fs\"));\
             var rf = __import.named(await __import(\"fs\"), \"fs\", \"readFile\");\n1"
        );
        assert_eq!(js("import * as os from 'os'; os"), "var os = await __import(\"os\"); os");
        assert_eq!(js("import 'x';"), "void await __import(\"x\");");
        assert_eq!(js("import {\n a\n} from 'x'\nb").matches('\n').count(), 3);
        assert_eq!(js("f(import('a' + import('b')))"), "f(__import('a' + __import('b')))");
        assert_eq!(js("'import x from y' // import(z)"), "'import x from y' // import(z)");
        assert_eq!(js("export const a = import('b')"), "const a = __import('b')");
        assert_eq!(js("export default {a: 1};\n2"), "({a: 1});\n2");
        assert_eq!(js("export default function f() {}"), "function f() {}");
        assert_eq!(
            js("export default class { m() { return import('b') } }"),
            "(class { m() { return __import('b') } })"
        );
        assert_eq!(js("export * from 'a'; export {b} from 'c'; 1"), "  1");
        assert_eq!(
            js("import d from './d.json' with {type: 'json'}"),
            "var d = (m => 'default' in m ? m.default : m)(await __import(\"./d.json\", {with: {\"type\": \"json\"}}));"
        );
        assert_eq!(js("import.meta.url; new.target"), "__import.meta.url; new.target");
    }

    /// The line of the cell that a line of what became of it came from, by the map at its end.
    fn origin(text: &str, part: &str) -> Option<u32> {
        let (code, map) =
            text.split_once("//# sourceMappingURL=data:application/json;charset=utf-8;base64,")?;
        let map = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, map).expect("base64");
        let map: serde_json::Value = serde_json::from_slice(&map).expect("json");
        let mappings = map["mappings"].as_str().expect("mappings");
        let wanted = code.lines().position(|line| line.contains(part)).expect("the line");
        let (mut line, mut found) = (0, None);
        for (at, group) in mappings.split(';').enumerate() {
            for segment in group.split(',').filter(|segment| !segment.is_empty()) {
                line += numbers(segment).get(2).copied().unwrap_or(0);
                if at == wanted {
                    found = found.or(u32::try_from(line).ok());
                }
            }
        }
        found
    }

    /// The numbers of a segment (ECMA-426 §5.2).
    fn numbers(segment: &str) -> Vec<i64> {
        const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let (mut all, mut value, mut shift) = (Vec::new(), 0_i64, 0);
        for digit in segment.chars() {
            let digit = DIGITS.find(digit).expect("a digit") as i64;
            value |= (digit & 31) << shift;
            shift += 5;
            if digit & 32 == 0 {
                all.push(if value & 1 == 1 { -(value >> 1) } else { value >> 1 });
                (value, shift) = (0, 0);
            }
        }
        all
    }

    #[test]
    fn a_map_names_the_lines_of_the_cell() {
        let text =
            ts("interface P {\n  a: number\n}\n\nimport fs from 'fs'\nconst p: P = {\n  a: 1,\n}\nthrow p");
        assert_eq!(origin(&text, "throw p"), Some(8), "{text}");
        assert_eq!(origin(&text, "const p"), Some(5), "{text}");
        assert!(!text.contains("sourcesContent\":[\""), "{text}");
    }

    #[test]
    fn decorators_are_the_old_ones() {
        let text = ts("@frozen class A {\n  @log m(@at x: number) {}\n}");
        assert!(!text.contains('@') || !text.contains("@log"), "{text}");
        assert!(
            text.contains("babelHelpers.decorate([") && text.contains("babelHelpers.decorateParam(0"),
            "{text}"
        );
        let standard = "1\nfunction log(value: Function, context: ClassMethodDecoratorContext) {}";
        let Err(Answer::SyntaxError { line, message, .. }) = javascript(standard, true) else {
            panic!("no error")
        };
        assert_eq!(line, 2);
        assert!(message.contains("experimentalDecorators"), "{message}");
    }

    #[test]
    fn elements_are_calls_and_types_in_brackets_stay_types() {
        let text = ts("const y = <div a={1}>{[<b/>]}</div>");
        assert!(text.contains("await __import(\"react/jsx-runtime\")") && text.contains("_jsx"), "{text}");
        let text = ts("/** @jsxRuntime classic */ /** @jsx h */ const y = <a b=\"c\"/>");
        assert!(text.contains("h(\"a\", { b: \"c\" })"), "{text}");
        assert!(ts("const n = <any>5; const f = <T>(x: T) => x").contains("const n = 5"));
        let Err(Answer::SyntaxError { line, .. }) = javascript("const y = <div/>\nconst z: = 1", true) else {
            panic!("no error")
        };
        assert_eq!(line, 2, "the element is not what is wrong");
    }

    #[test]
    fn types_go_and_enums_stay() {
        let text = ts("interface P {a:number}\nconst p: P = {a:1};\nenum E {A,B}\np.a + E.B");
        assert!(
            !text.contains("interface") && text.contains("const p = { a: 1 }") && text.contains("E"),
            "{text}"
        );
        let text = ts("import fs from 'fs'\nimport type {T} from 'x'\nawait f<T>(1)");
        assert!(text.contains("__import(\"fs\")") && !text.contains("\"x\""), "{text}");
        let text = ts("import {A, B, C} from 'x'\nlet a: A, b: B; new B()");
        let named = |name: &str| text.contains(&format!("named(await __import(\"x\"), \"x\", \"{name}\")"));
        assert_eq!(["A", "B", "C"].map(named), [false, true, true], "{text}");
    }

    #[test]
    fn the_first_enum_of_a_cell_begins_anew() {
        let text = ts("enum A {X}\nenum A {Y = 1}\nvar B = ((b: any) => b)(B || {}); { enum B {Z} }");
        assert_eq!(text.matches("(A || {})").count(), 1, "{text}");
        assert_eq!(text.matches("(B || {})").count(), 1, "{text}");
        assert_eq!(text.matches("}({})").count(), 2, "{text}");
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        let Err(Answer::SyntaxError { line, column, message }) =
            javascript("const a = 1\nconst z: = 1", true)
        else {
            panic!("no error")
        };
        assert_eq!((line, message.is_empty()), (2, false));
        assert!(column > 1);
        assert!(javascript("import {", false).is_err());
    }
}
