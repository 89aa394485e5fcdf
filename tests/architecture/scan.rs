//! Reads one Rust file into the paths it names: comments, strings and `#[cfg(test)]` items fall away, `use` trees are
//! spread out, `self`, `super` and names brought in by `use` are resolved. Lexing is `proc_macro2`'s; macro bodies are
//! searched like any other tokens. Does not expand macros and knows no rule.

use std::collections::BTreeMap;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path of names and the line it begins on. First name `crate` for our own root package; else an outside crate, or
/// something local that no rule knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPath {
    pub line: usize,
    pub segments: Vec<String>,
    /// It stands in a `use`, where even a single name brings in a whole crate.
    pub in_use: bool,
}

/// All that the rules look at.
#[derive(Debug, Default)]
pub struct Scan {
    pub paths: Vec<NamedPath>,
    /// Every identifier, keywords included, with its line.
    pub idents: Vec<(usize, String)>,
    /// `#[cfg(test)] mod name;`: module paths whose files are test code.
    pub test_modules: Vec<Vec<String>>,
}

/// Scans a file whose module is `module` (empty for a crate's root).
pub fn scan(text: &str, module: &[String]) -> Result<Scan, String> {
    let tokens: TokenStream = text.parse().map_err(|error| format!("not Rust: {error}"))?;
    let mut reader = Reader { scan: Scan::default(), aliases: BTreeMap::new() };
    reader.group(tokens, module);
    let Reader { mut scan, aliases } = reader;
    for path in &mut scan.paths {
        // A name brought in by `use` stands for what it was brought in as; a few turns are enough for any honest file.
        for _ in 0..4 {
            match path.segments.first().and_then(|head| aliases.get(head)) {
                Some(target) if !path.in_use || target.first() == Some(&"crate".to_owned()) => {
                    path.segments.splice(0..1, target.iter().cloned());
                }
                _ => break,
            }
        }
    }
    Ok(scan)
}

struct Reader {
    scan: Scan,
    /// Name in this file -> full path, for every `use`.
    aliases: BTreeMap<String, Vec<String>>,
}

impl Reader {
    fn group(&mut self, tokens: TokenStream, module: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            if let Some(after) = self.test_item(&tokens, at, module) {
                at = after;
                continue;
            }
            match &tokens[at] {
                TokenTree::Group(group) => {
                    self.group(group.stream(), module);
                    at += 1;
                }
                TokenTree::Ident(ident) => {
                    let (name, line) = (ident.to_string(), ident.span().start().line);
                    self.scan.idents.push((line, name.clone()));
                    at = match name.as_str() {
                        "use" => self.use_item(&tokens, at + 1, module),
                        "pub" if is_group(tokens.get(at + 1), Delimiter::Parenthesis) => at + 2,
                        "mod" => self.inline_module(&tokens, at + 1, module),
                        "crate" if is_ident(at.checked_sub(1).and_then(|i| tokens.get(i)), "extern") => {
                            let named = ident_of(tokens.get(at + 1)).into_iter().collect();
                            self.scan.paths.push(NamedPath { line, segments: named, in_use: true });
                            at + 2
                        }
                        _ => self.inline_path(&tokens, at, module),
                    };
                }
                _ => at += 1,
            }
        }
    }

    /// `#[cfg(test)]` or `#[cfg(all(test, ..))]` and the item under it: the index behind them.
    fn test_item(&mut self, tokens: &[TokenTree], at: usize, module: &[String]) -> Option<usize> {
        if !is_punct(tokens.get(at), '#') || !is_cfg_test(tokens.get(at + 1)?) {
            return None;
        }
        let mut next = at + 2;
        while next < tokens.len() {
            if is_ident(tokens.get(next), "mod") && is_punct(tokens.get(next + 2), ';') {
                let name = ident_of(tokens.get(next + 1));
                self.scan.test_modules.push(module.iter().cloned().chain(name).collect());
            }
            let ends = is_punct(tokens.get(next), ';') || is_group(tokens.get(next), Delimiter::Brace);
            next += 1;
            if ends {
                break;
            }
        }
        Some(next)
    }

    fn inline_module(&mut self, tokens: &[TokenTree], at: usize, module: &[String]) -> usize {
        if let (Some(name), Some(TokenTree::Group(body))) = (ident_of(tokens.get(at)), tokens.get(at + 1)) {
            let inner: Vec<String> = module.iter().cloned().chain([name]).collect();
            self.group(body.stream(), &inner);
            return at + 2;
        }
        at
    }

    /// `a::b::c` outside a `use`; a single name is no path.
    fn inline_path(&mut self, tokens: &[TokenTree], start: usize, module: &[String]) -> usize {
        let mut segments: Vec<String> = ident_of(tokens.get(start)).into_iter().collect();
        let mut at = start + 1;
        while is_separator(tokens, at) {
            let Some(name) = ident_of(tokens.get(at + 2)) else { break };
            if let Some(token) = tokens.get(at + 2) {
                self.scan.idents.push((token.span().start().line, name.clone()));
            }
            segments.push(name);
            at += 3;
        }
        if segments.len() > 1 {
            let line = tokens[start].span().start().line;
            self.scan.paths.push(NamedPath { line, segments: resolve(&segments, module), in_use: false });
        }
        at
    }

    fn use_item(&mut self, tokens: &[TokenTree], start: usize, module: &[String]) -> usize {
        // `+ use<..>` bounds are not imports.
        if is_punct(tokens.get(start), '<') {
            return start;
        }
        let length = tokens[start..].iter().take_while(|token| !is_punct(Some(token), ';')).count();
        self.use_tree(&tokens[start..start + length], &[], module);
        start + length
    }

    fn use_tree(&mut self, tokens: &[TokenTree], prefix: &[String], module: &[String]) {
        for branch in tokens.split(|token| is_punct(Some(token), ',')) {
            let mut segments = prefix.to_vec();
            let mut alias = None;
            let mut spread = false;
            let mut at = 0;
            while at < branch.len() {
                match &branch[at] {
                    TokenTree::Ident(ident) if ident == "as" => {
                        alias = ident_of(branch.get(at + 1));
                        at += 1;
                    }
                    TokenTree::Ident(ident) => {
                        let name = ident.to_string();
                        self.scan.idents.push((ident.span().start().line, name.clone()));
                        if name != "self" || segments.is_empty() {
                            segments.push(name);
                        }
                    }
                    TokenTree::Group(group) => {
                        let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                        self.use_tree(&inner, &segments, module);
                        spread = true;
                    }
                    _ => {}
                }
                at += 1;
            }
            if spread || branch.is_empty() {
                continue;
            }
            let line = branch[0].span().start().line;
            let full = resolve(&segments, module);
            let is_glob = is_punct(branch.last(), '*');
            if let (Some(name), false) = (alias.or_else(|| full.last().cloned()), is_glob)
                && full.first() != Some(&name)
            {
                self.aliases.insert(name, full.clone());
            }
            self.scan.paths.push(NamedPath { line, segments: full, in_use: true });
        }
    }
}

/// `crate::..` for `self::..` and `super::..`; other paths stay as they are.
fn resolve(segments: &[String], module: &[String]) -> Vec<String> {
    let rooted = |base: &[String], rest: &[String]| {
        ["crate".to_owned()].iter().chain(base).chain(rest).cloned().collect::<Vec<_>>()
    };
    let ups = segments.iter().take_while(|name| *name == "super").count();
    match segments.first().map(String::as_str) {
        Some("self") => {
            let ups = segments[1..].iter().take_while(|name| *name == "super").count();
            rooted(&module[..module.len().saturating_sub(ups)], &segments[1 + ups..])
        }
        Some("super") => rooted(&module[..module.len().saturating_sub(ups)], &segments[ups..]),
        _ => segments.to_vec(),
    }
}

fn is_cfg_test(attribute: &TokenTree) -> bool {
    let TokenTree::Group(group) = attribute else { return false };
    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
    let Some(TokenTree::Group(condition)) = inner.get(1) else { return false };
    if !is_ident(inner.first(), "cfg") {
        return false;
    }
    let condition: Vec<TokenTree> = condition.stream().into_iter().collect();
    match (condition.first(), condition.get(1)) {
        (Some(only), None) => is_ident(Some(only), "test"),
        (Some(all), Some(TokenTree::Group(list))) if is_ident(Some(all), "all") => {
            let list: Vec<TokenTree> = list.stream().into_iter().collect();
            list.split(|token| is_punct(Some(token), ',')).any(|one| one.len() == 1 && is_ident(one.first(), "test"))
        }
        _ => false,
    }
}

fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_ident(token: Option<&TokenTree>, wanted: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if ident == wanted)
}

fn is_group(token: Option<&TokenTree>, delimiter: Delimiter) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == delimiter)
}

fn ident_of(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}
