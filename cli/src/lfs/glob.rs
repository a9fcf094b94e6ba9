//! Shell patterns, on bytes.

/// Shell pattern: `*`, `?`, `[abc]`, `[!a-c]`, `\x`.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let Some((&p, rest)) = pattern.split_first() else { return text.is_empty() };
    match p {
        b'*' => {
            let rest = &pattern[pattern.iter().take_while(|b| **b == b'*').count()..];
            (0..=text.len()).any(|i| glob(rest, &text[i..]))
        }
        b'?' => text.split_first().is_some_and(|(_, t)| glob(rest, t)),
        b'[' => match (class(rest), text.split_first()) {
            (Some((holds, after)), Some((c, t))) => holds(*c) && glob(after, t),
            (Some(_), None) => false,
            (None, first) => first.is_some_and(|(c, t)| *c == b'[' && glob(rest, t)),
        },
        b'\\' if !rest.is_empty() => text.split_first().is_some_and(|(c, t)| *c == rest[0] && glob(&rest[1..], t)),
        _ => text.split_first().is_some_and(|(c, t)| *c == p && glob(rest, t)),
    }
}

/// A bracket expression behind its `[`: what it matches, and what follows it.
fn class(pattern: &[u8]) -> Option<(impl Fn(u8) -> bool + '_, &[u8])> {
    let negated = matches!(pattern.first(), Some(b'!' | b'^'));
    let body = &pattern[usize::from(negated)..];
    // A `]` that comes first stands for itself.
    let len = 1 + body.get(1..)?.iter().position(|b| *b == b']')?;
    let (set, after) = (&body[..len], &body[len + 1..]);
    let holds = move |c: u8| {
        let mut i = 0;
        let mut found = false;
        while i < set.len() {
            if i + 2 < set.len() && set[i + 1] == b'-' {
                found |= (set[i]..=set[i + 2]).contains(&c);
                i += 3;
            } else {
                found |= set[i] == c;
                i += 1;
            }
        }
        found != negated
    };
    Some((holds, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_patterns_match_as_in_the_shell() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[", "[", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("**b", "ab", true),
            ("[^a]", "b", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), want, "{pattern} {text}");
        }
    }
}
