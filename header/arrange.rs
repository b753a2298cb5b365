//! The order of include/evloop.h: sorts what cbindgen writes into the sections
//! of header/sections.txt.
//!
//! cbindgen writes all constants, then all types, then all functions. A reader
//! wants each constant and type beside the functions that take it. build.rs
//! calls `arrange()`, so `make header` and the test of drift see its result;
//! tests/header.rs has its tests.
//!
//! A line of the list names one item or, with a `*` at its end, all items with
//! that beginning, in the order of the sources. A name goes before a
//! beginning, and a longer beginning before a shorter one. Lines that begin
//! with `|` are the section's introduction, lines that begin with `#` are
//! comments of the list.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros)]

use std::collections::{HashMap, HashSet};

/// Where the list is, for messages.
const LIST: &str = "header/sections.txt";

/// A section of the list.
struct Section<'a> {
    title: &'a str,
    introduction: Vec<&'a str>,
    patterns: Vec<&'a str>,
}

/// One declaration of the header, with the comment before it.
struct Item<'a> {
    name: &'a str,
    comment: &'a str,
    code: &'a str,
}

/// Sorts a header that cbindgen has generated. `sources` is the text of the
/// Rust sources: a constant that they write in hexadecimal stays hexadecimal.
pub fn arrange(generated: &str, sources: &str, list: &str) -> Result<String, String> {
    let sections = parse_list(list)?;
    let blocks: Vec<&str> = generated.split("\n\n").map(|block| block.trim_matches('\n')).collect();
    let first = blocks.iter().position(|block| block.starts_with("/**")).unwrap_or_default();
    let (opening, rest) = blocks.split_at(first);
    let Some((guard, rest)) = rest.split_last() else {
        return Err("the generated header declares nothing".to_owned());
    };
    let is_bracket = |block: &&str| block.starts_with("#ifdef __cplusplus");
    let brackets: Vec<&str> = rest.iter().copied().filter(is_bracket).collect();
    let &[extern_c, end_of_extern_c] = brackets.as_slice() else {
        return Err("the generated header has not one extern \"C\" block".to_owned());
    };
    let declared = rest.iter().filter(|block| !block.is_empty() && !is_bracket(block));
    let items = declared.map(|block| parse_item(block)).collect::<Result<Vec<_>, _>>()?;
    let homes = homes(&items, &sections)?;
    let mut sorted: Vec<Vec<&Item>> = Vec::new();
    for section in &sections {
        let belongs = |item: &&Item, pattern| homes.get(item.name) == Some(pattern);
        let of_pattern = |pattern| items.iter().filter(move |item| belongs(item, pattern));
        sorted.push(section.patterns.iter().flat_map(of_pattern).collect());
    }
    check_uses(sorted.iter().flatten().copied())?;

    let titles: String =
        sections.iter().map(|section| format!(" *   {}\n", section.title)).collect();
    let mut out = opening.join("\n\n").replacen(" * @contents\n", &titles, 1);
    out.push_str(&format!("\n\n{extern_c}\n\n"));
    let literals = literals(sources);
    for (section, items) in sections.iter().zip(sorted) {
        out.push_str(&banner(section));
        for item in items {
            out.push_str(&shorten(&format!("{}{}\n\n", item.comment, code(item, &literals)?)));
        }
    }
    out.push_str(&format!("{end_of_extern_c}\n\n{guard}\n"));
    Ok(out)
}

fn parse_list(list: &str) -> Result<Vec<Section<'_>>, String> {
    let mut sections: Vec<Section> = Vec::new();
    let mut seen = HashSet::new();
    for line in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(title) = line.strip_prefix("section ") {
            let (introduction, patterns) = (Vec::new(), Vec::new());
            sections.push(Section { title, introduction, patterns });
            continue;
        }
        let Some(section) = sections.last_mut() else {
            return Err(format!("{LIST}: \"{line}\" comes before the first section"));
        };
        if let Some(text) = line.strip_prefix('|') {
            section.introduction.push(text);
        } else if line.contains(' ') {
            return Err(format!("{LIST}: \"{line}\" is neither a section nor a name"));
        } else if !seen.insert(line) {
            return Err(format!("{LIST}: \"{line}\" is there twice"));
        } else {
            section.patterns.push(line);
        }
    }
    Ok(sections)
}

fn parse_item(block: &str) -> Result<Item<'_>, String> {
    let end = if block.starts_with("/**") { block.find("*/\n").map(|at| at + 3) } else { None };
    let (comment, code) = block.split_at(end.unwrap_or_default());
    let Some(name) = name(code).filter(|_| end.is_some()) else {
        let line = code.lines().next().unwrap_or_default();
        return Err(format!("no declaration with a comment: \"{line}\""));
    };
    if let Some((_, section)) = comment.split_once("@section") {
        let section = section.lines().next().unwrap_or_default().trim();
        return Err(format!("{name}: unknown section \"{section}\"; the sections are in {LIST}"));
    }
    Ok(Item { name, comment, code })
}

/// The name that a piece of C defines or declares.
fn name(code: &str) -> Option<&str> {
    if let Some(rest) = code.strip_prefix("#define ") {
        return rest.split(' ').next();
    }
    if let Some(rest) = code.strip_prefix("typedef struct ") {
        return rest.split(' ').next();
    }
    if let Some(rest) = code.strip_prefix("typedef ") {
        return match rest.split_once("(*") {
            Some((_, rest)) => rest.split(')').next(),
            None => rest.trim_end_matches(';').split(' ').next_back(),
        };
    }
    code.split_once('(')?.0.split([' ', '*', '\n']).next_back()
}

/// The pattern of the list that each item belongs to, by the item's name.
fn homes<'a>(
    items: &[Item<'a>],
    sections: &[Section<'a>],
) -> Result<HashMap<&'a str, &'a str>, String> {
    let patterns = || sections.iter().flat_map(|section| section.patterns.iter().copied());
    let mut homes = HashMap::new();
    for Item { name, .. } in items {
        let fits = |pattern: &&str| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        };
        // A name is as long as the longest beginning with its `*`, or longer.
        let rank = |pattern: &&str| (!pattern.ends_with('*'), pattern.len());
        let Some(home) = patterns().filter(fits).max_by_key(rank) else {
            return Err(format!("{name} belongs to no section: add it to {LIST}"));
        };
        if homes.insert(*name, home).is_some() {
            return Err(format!("{name} is in the generated header twice"));
        }
    }
    let used: HashSet<&str> = homes.values().copied().collect();
    match patterns().find(|pattern| !used.contains(pattern)) {
        Some(pattern) => Err(format!("{LIST}: nothing in the header is \"{pattern}\"")),
        None => Ok(homes),
    }
}

/// C wants a type declared before its use.
fn check_uses<'a>(items: impl Iterator<Item = &'a Item<'a>>) -> Result<(), String> {
    let mut declared = HashSet::new();
    for item in items {
        declared.insert(item.name);
        let words = item.code.split(|c: char| !c.is_alphanumeric() && c != '_');
        let mut types = words
            .filter(|word| word.ends_with("_t"))
            .filter(|word| word.starts_with("evloop_") || word.starts_with("tfd_"));
        if let Some(later) = types.find(|name| !declared.contains(name)) {
            return Err(format!("{} uses {later}, which {LIST} puts behind it", item.name));
        }
    }
    Ok(())
}

/// The constants that the sources write in hexadecimal, with their literals.
fn literals<'a>(sources: &'a str) -> HashMap<&'a str, &'a str> {
    let literal = |line: &'a str| {
        let (name, rest) = line.trim_start().strip_prefix("pub const ")?.split_once(": ")?;
        let value = rest.split_once(" = ")?.1.strip_suffix(';')?;
        value.starts_with("0x").then_some((name, value))
    };
    sources.lines().filter_map(literal).collect()
}

/// An item's code: a flag's value as the sources write it.
fn code(item: &Item, literals: &HashMap<&str, &str>) -> Result<String, String> {
    let Some(literal) = literals.get(item.name) else { return Ok(item.code.to_owned()) };
    let digits: String = literal.chars().skip(2).filter(|digit| *digit != '_').collect();
    let value = u64::from_str_radix(&digits, 16).map_err(|_| format!("{literal} is no number"))?;
    let decimal = format!("#define {} {value}", item.name);
    if item.code != decimal {
        return Err(format!("{}: {literal} in the sources, not \"{}\"", item.name, item.code));
    }
    Ok(format!("#define {} 0x{digits}", item.name))
}

/// Puts comments of one line on one line, where that has at most 78 columns.
fn shorten(item: &str) -> String {
    let mut out = String::new();
    let mut rest = item;
    while let Some((before, after)) = rest.split_once("/**\n") {
        let (line, end) = after.split_once('\n').unwrap_or_default();
        let text = line.trim_start().strip_prefix("* ");
        let code = end.trim_start().strip_prefix("*/\n");
        out.push_str(before);
        match text.zip(code) {
            Some((text, code)) if line.len() + "/** ".len() <= 78 => {
                out.push_str(&format!("/** {text} */\n"));
                rest = code;
            }
            _ => {
                out.push_str("/**\n");
                rest = after;
            }
        }
    }
    out + rest
}

/// The comment at the beginning of a section.
fn banner(section: &Section) -> String {
    let rule = "-".repeat(72);
    let mut out = format!("/* {rule}\n * {}\n", section.title);
    if !section.introduction.is_empty() {
        out.push_str(&format!(" * {rule}\n *\n"));
    }
    for line in &section.introduction {
        out.push_str(format!(" *{line}").trim_end());
        out.push('\n');
    }
    if section.introduction.is_empty() {
        out.push_str(&format!(" * {rule} */\n\n"));
    } else {
        out.push_str(" */\n\n");
    }
    out
}
