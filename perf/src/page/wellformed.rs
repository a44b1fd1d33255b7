//! For tests: is a text well-formed XML, as far as pages of ours use it?

/// Walks through all tags: quoted attributes, nothing unescaped, everything closed in its order.
pub(super) fn wellformed(text: &str) -> Result<(), String> {
    let mut rest = text.strip_prefix("<!DOCTYPE html>").unwrap_or(text);
    let mut open: Vec<&str> = Vec::new();
    while let Some(at) = rest.find('<') {
        characters(&rest[..at])?;
        let end = at + rest[at..].find('>').ok_or("a tag that does not end")?;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop() != Some(name) {
                return Err(format!("</{name}> closes something else; open: {open:?}"));
            }
            continue;
        }
        let (tag, alone) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(format!("a tag with the name {name:?}"));
        }
        quoted(attributes)?;
        if !alone {
            open.push(name);
        }
    }
    characters(rest)?;
    if open.is_empty() { Ok(()) } else { Err(format!("never closed: {open:?}")) }
}

/// `a="b" c="d"`, each name once.
fn quoted(attributes: &str) -> Result<(), String> {
    let mut names = Vec::new();
    let mut rest = attributes.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").ok_or_else(|| format!("no quoted value: {rest}"))?;
        let (value, after) = after.split_once('"').ok_or_else(|| format!("a value that does not end: {after}"))?;
        if names.contains(&name) || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(format!("an attribute with the name {name:?}"));
        }
        names.push(name);
        characters(value)?;
        rest = after.trim_start();
    }
    Ok(())
}

fn characters(text: &str) -> Result<(), String> {
    for (i, _) in text.match_indices('&') {
        let entity = text[i..].split_inclusive(';').next().unwrap_or_default();
        if !["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"].contains(&entity) {
            return Err(format!("an entity {entity:?}"));
        }
    }
    match text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r')) {
        Some(c) => Err(format!("a control character {c:?}")),
        None => Ok(()),
    }
}

#[test]
fn what_is_not_well_formed_is_found() {
    for good in ["<a/>", "<a b=\"c &lt; d\"><i>x</i></a>", "<!DOCTYPE html>\n<html></html>\n"] {
        assert_eq!(wellformed(good), Ok(()), "{good}");
    }
    for bad in [
        "<a>",
        "</a>",
        "<a><b></a></b>",
        "<a b=c/>",
        "<a b=\"1\" b=\"2\"/>",
        "a & b",
        "&nbsp;",
        "<a",
        "<a \"/>",
        "\u{1}",
    ] {
        assert!(wellformed(bad).is_err(), "{bad}");
    }
}
