//! Cells of JavaScript and TypeScript, as the console of an inspector takes them: without types, without static
//! imports, without exports.
//!
//! A stranger's text is parsed here by a large parser. That is why it is done by a worker, with the rights of the
//! code that is going to run anyway: whatever it makes the parser do, it could have done itself.
//!
//! `import a, {b as c} from "m"` becomes a `var` of what the interpreter's own `__import("m")` gives, so that names can
//! be imported again; `import(…)` calls that too, because the console's own has no file to resolve names from.

use std::os::fd::OwnedFd;
use std::path::Path;

use oxc_allocator::Allocator;
use oxc_ast::ast::{
    ExportNamedDeclaration, ImportDeclaration, ImportDeclarationSpecifier, ImportExpression, ModuleExportName,
};
use oxc_ast_visit::{Visit, walk};
use oxc_codegen::Codegen;
use oxc_diagnostics::OxcDiagnostic;
use oxc_parser::Parser;
use oxc_semantic::SemanticBuilder;
use oxc_span::{GetSpan, SourceType};
use oxc_transformer::{TransformOptions, Transformer};

use crate::limits::JSON_BODY_BYTES_MAX;
use crate::sys::Errno;
use crate::wire::worker::{Answer, Failure};

/// Bytes of a message about a syntax error.
const MESSAGE_BYTES_MAX: usize = 1024;

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
    if typescript { without_imports(&without_types(source)?) } else { without_imports(source) }
}

fn without_types(source: &str) -> Result<String, Answer> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, source, SourceType::ts().with_module(true)).parse();
    if let Some(error) = parsed.errors.first() {
        return Err(wrong(source, error));
    }
    let mut program = parsed.program;
    let scoping = SemanticBuilder::new().with_enum_eval(true).build(&program).semantic.into_scoping();
    let mut options = TransformOptions::default();
    // What one cell imports the next one may use.
    options.typescript.only_remove_type_imports = true;
    let path = Path::new("cell.ts");
    let made = Transformer::new(&allocator, path, &options).build_with_scoping(scoping, &mut program);
    match made.errors.first() {
        Some(error) => Err(wrong(source, error)),
        None => Ok(Codegen::new().build(&program).code),
    }
}

fn without_imports(source: &str) -> Result<String, Answer> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, source, SourceType::mjs()).parse();
    if let Some(error) = parsed.errors.first() {
        return Err(wrong(source, error));
    }
    let mut edits = Edits { source, edits: Vec::new() };
    edits.visit_program(&parsed.program);
    Ok(edits.apply())
}

fn wrong(source: &str, error: &OxcDiagnostic) -> Answer {
    let at = error.labels.as_ref().and_then(|labels| labels.first()).map_or(0, |label| label.offset());
    let before = source.get(..at.min(source.len())).unwrap_or_default();
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let mut message = error.message.to_string();
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Answer::SyntaxError { message, line: number(line), column: number(column) }
}

/// Parts of a source and what takes their place.
struct Edits<'s> {
    source: &'s str,
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
        let module = format!("(await __import({}))", quoted(&import.source.value));
        let names = import.specifiers.iter().flatten().map(|specifier| binding(specifier, &module));
        let names: Vec<String> = names.collect();
        let text = if names.is_empty() {
            format!("await {};", &module[7..module.len() - 1])
        } else {
            names.concat()
        };
        // The lines after it keep their numbers.
        self.replace(import.span.start, import.span.end, text + &lines);
    }

    fn visit_import_expression(&mut self, import: &ImportExpression<'a>) {
        let start = import.span.start;
        self.replace(start, start + 6, "__import".to_owned());
        walk::walk_import_expression(self, import);
    }

    fn visit_export_named_declaration(&mut self, export: &ExportNamedDeclaration<'a>) {
        match &export.declaration {
            Some(declaration) => self.replace(export.span.start, declaration.span().start, String::new()),
            None => self.replace(export.span.start, export.span.end, String::new()),
        }
        walk::walk_export_named_declaration(self, export);
    }
}

fn binding(specifier: &ImportDeclarationSpecifier<'_>, module: &str) -> String {
    match specifier {
        // As node does for modules that are not ES modules: what there is, if there is no default.
        ImportDeclarationSpecifier::ImportDefaultSpecifier(one) => {
            format!("var {} = (m => 'default' in m ? m.default : m){module};", one.local.name)
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
            format!("var {} = {module}[{}];", one.local.name, quoted(&imported))
        }
    }
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
             var rf = (await __import(\"fs\"))[\"readFile\"];\n1"
        );
        assert_eq!(js("import * as os from 'os'; os"), "var os = (await __import(\"os\")); os");
        assert_eq!(js("import 'x';"), "await __import(\"x\");");
        assert_eq!(js("import {\n a\n} from 'x'\nb").matches('\n').count(), 3);
        assert_eq!(js("f(import('a' + import('b')))"), "f(__import('a' + __import('b')))");
        assert_eq!(js("'import x from y' // import(z)"), "'import x from y' // import(z)");
        assert_eq!(js("export const a = import('b')"), "const a = __import('b')");
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
