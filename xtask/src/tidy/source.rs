//! A Rust file seen as three texts of equal layout: as written, code only, comments only.
//!
//! It deliberately builds no syntax tree. In the code text, comments and the inside of strings and character literals
//! are blanks; in the comment text, everything else is.
//!
//! Invariant: all three texts have the same number of lines, so a line number found in one holds in all.

use std::ops::Range;

/// A Rust file prepared for the rules.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) path: &'a str,
    pub(crate) text: &'a str,
    pub(crate) code: String,
    pub(crate) comments: String,
    /// Lines, counted from 0, that belong to tests.
    test_lines: Vec<Range<usize>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(path: &'a str, text: &'a str) -> Self {
        let (code, comments) = split(text);
        let test_lines = test_blocks(&code);
        Self { path, text, code, comments, test_lines }
    }

    /// The crate's folder name, such as `core`; `None` outside `crates/`.
    pub(crate) fn crate_name(&self) -> Option<&'a str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }

    /// Whether the line, counted from 0, is test code: in a test file or in a `#[cfg(test)]` block.
    pub(crate) fn is_test(&self, line: usize) -> bool {
        let is_test_name = |part: &str| matches!(part, "tests" | "tests.rs" | "testing" | "testing.rs" | "benches");
        self.path.split('/').any(is_test_name) || self.test_lines.iter().any(|range| range.contains(&line))
    }

    /// Lines of code, numbered from 0.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate()
    }
}

/// Whether `word` stands in `text` as a whole word; `_` belongs to words.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
    })
}

/// The byte after the bracket that closes the one at `open`; the end of the text if nothing does.
pub(crate) fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return at + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// The number of the line, counted from 0, that holds byte `at`.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count()
}

fn test_blocks(code: &str) -> Vec<Range<usize>> {
    code.match_indices("#[cfg(test)]")
        .filter_map(|(at, _)| {
            let rest = &code[at..];
            let open = rest.find('{')?;
            // `#[cfg(test)] mod tests;` has no block here.
            if rest[..open].contains(';') {
                return None;
            }
            Some(line_of(code, at)..line_of(code, block_end(code, at + open) - 1) + 1)
        })
        .collect()
}

#[derive(Clone, Copy)]
enum State {
    Code,
    LineComment,
    BlockComment(usize),
    /// A string that ends at a quote and that many `#`; `None` for one with escapes.
    Text(Option<usize>),
}

fn split(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut comments = String::with_capacity(text.len());
    let mut state = State::Code;
    let mut at = 0;
    while let Some(&now) = chars.get(at) {
        let (next_state, length) = step(state, &chars, at);
        let in_comment = |state| matches!(state, State::LineComment | State::BlockComment(_));
        for &c in chars.iter().skip(at).take(length) {
            let blank = if c == '\n' { '\n' } else { ' ' };
            let is_code = matches!((state, next_state), (State::Code, State::Code)) && (length == 1 || now != '\'');
            let is_comment = in_comment(state) || in_comment(next_state);
            code.push(if is_code { c } else { blank });
            comments.push(if is_comment { c } else { blank });
        }
        at += length;
        state = next_state;
    }
    (code, comments)
}

/// The state after the characters at `at`, and how many of them were used up.
fn step(state: State, chars: &[char], at: usize) -> (State, usize) {
    let next = chars.get(at + 1).copied();
    match (state, chars[at]) {
        (State::Code, '/') if next == Some('/') => (State::LineComment, 2),
        (State::Code, '/') if next == Some('*') => (State::BlockComment(1), 2),
        (State::Code, '"') => (State::Text(None), 1),
        (State::Code, 'r') if !follows_word(chars, at) => match raw_string(chars, at) {
            Some(hashes) => (State::Text(Some(hashes)), hashes + 2),
            None => (State::Code, 1),
        },
        (State::Code, '\'') => (State::Code, character_literal(chars, at)),
        (State::Code, _) => (State::Code, 1),
        (State::LineComment, '\n') => (State::Code, 1),
        (State::LineComment, _) => (State::LineComment, 1),
        (State::BlockComment(depth), '/') if next == Some('*') => (State::BlockComment(depth + 1), 2),
        (State::BlockComment(1), '*') if next == Some('/') => (State::Code, 2),
        (State::BlockComment(depth), '*') if next == Some('/') => (State::BlockComment(depth - 1), 2),
        (State::BlockComment(depth), _) => (State::BlockComment(depth), 1),
        (State::Text(None), '\\') => (State::Text(None), 2),
        (State::Text(None), '"') => (State::Code, 1),
        (State::Text(Some(hashes)), '"') if count_hashes(chars, at + 1) >= hashes => (State::Code, hashes + 1),
        (State::Text(kind), _) => (State::Text(kind), 1),
    }
}

/// Whether the character before belongs to an identifier. A `b` or `c` before a raw string does not count.
fn follows_word(chars: &[char], at: usize) -> bool {
    let Some(before) = at.checked_sub(1).and_then(|index| chars.get(index)) else { return false };
    let is_prefix = matches!(before, 'b' | 'c') && (at < 2 || !is_word(chars[at - 2]));
    is_word(*before) && !is_prefix
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn raw_string(chars: &[char], at: usize) -> Option<usize> {
    let hashes = count_hashes(chars, at + 1);
    (chars.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

fn count_hashes(chars: &[char], from: usize) -> usize {
    chars.iter().skip(from).take_while(|c| **c == '#').count()
}

/// How many characters a literal such as `'{'` or `'\u{7f}'` takes; 1 for the quote of a lifetime.
fn character_literal(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), Some(_)) => {
            let tail = chars.iter().skip(at + 3).position(|c| *c == '\'');
            tail.map_or(1, |distance| distance + 4)
        }
        (Some(_), Some('\'')) => 3,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::new("crates/core/src/a.rs", text).code
    }

    #[test]
    fn comments_and_strings_are_blanked_in_code() {
        for (text, expected) in [
            ("a // b {\nc", "a       \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            ("f(\"x { \\\" y\")", "f(          )"),
            ("f(r#\"x \" {\"#, br\"{\")", "f(          , b    )"),
            ("for r in rs", "for r in rs"),
            ("match c { '{' => '\\'', _ => '\\u{7f}' }", "match c {     =>     , _ =>          }"),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        ] {
            assert_eq!(code(text).trim_end(), expected.trim_end(), "{text}");
        }
    }

    #[test]
    fn comments_are_kept_apart() {
        let source = Source::new("a.rs", "let a = \"// no\"; // yes\n/* and\nthis */ b");
        let seen: Vec<&str> = source.comments.lines().map(str::trim).collect();
        assert_eq!(seen, ["// yes", "/* and", "this */"]);
        assert_eq!(source.code.lines().count(), 3);
    }

    #[test]
    fn test_code_is_told_from_product_code() {
        let text = "fn a() {}\n#[cfg(test)]\nmod t {\n    fn b() {}\n}\nfn c() {}\n";
        let source = Source::new("crates/core/src/a.rs", text);
        let tests: Vec<bool> = (0..6).map(|line| source.is_test(line)).collect();
        assert_eq!(tests, [false, true, true, true, true, false]);
        assert!(Source::new("crates/core/tests/a.rs", "").is_test(0));
        assert!(Source::new("crates/core/src/plan/tests.rs", "").is_test(0));
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("a unsafe {", "unsafe"));
        assert!(!has_word("unsafe_code", "unsafe"));
    }
}
