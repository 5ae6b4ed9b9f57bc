//! The expressions of a `print fmt`: C without statements, and the helpers of trace events
//! (`__print_flags`, `__get_str` …).

use crate::types::size_of_type;

/// Deepest nesting that is followed; real formats stay below 20.
const MAX_DEPTH: usize = 64;
/// Most binary operators in one format, which bounds the depth of the expressions that they build.
const MAX_BINARY: usize = 2048;
/// Longest format that is read: the longest real one (page flags) has some 8 KiB.
const MAX_LEN: usize = 256 << 10;

/// A `print fmt`.
#[derive(Clone, Debug)]
pub struct Print {
    /// Template, as for printf.
    pub template: Vec<u8>,
    /// Arguments that the template shows.
    pub arguments: Vec<Expr>,
}

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// A constant.
    Int(u64),
    /// A string.
    Text(Vec<u8>),
    /// `REC->name`.
    Field(String),
    /// A bare name: the argument of `__get_str` and the like.
    Name(String),
    /// `a[b]`.
    Index(Box<Expr>, Box<Expr>),
    /// An operator in front of its operand.
    Unary(Op, Box<Expr>),
    /// An operator between two operands.
    Binary(Op, Box<Expr>, Box<Expr>),
    /// `a ? b : c`.
    Choice(Box<Expr>, Box<Expr>, Box<Expr>),
    /// `(type)a`.
    Cast(String, Box<Expr>),
    /// `name(a, …)`.
    Call(String, Vec<Expr>),
    /// `{ a, b }`.
    Pair(Box<Expr>, Box<Expr>),
    /// C that is not an expression of this kind, in its source form.
    Source(String),
}

/// An operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    And,
    Or,
    Xor,
    Shl,
    Shr,
    LogicAnd,
    LogicOr,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Not,
    Flip,
    Neg,
    Deref,
    Address,
}

impl Op {
    /// Returns the operator as written between operands; empty for an operator that stands in front of its operand.
    pub fn sign(self) -> &'static str {
        let all = LEVELS.iter().copied().flatten();
        all.into_iter()
            .find(|(_, op)| *op == self)
            .map_or("", |(sign, _)| sign)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Name(String),
    Int(u64),
    Text(Vec<u8>),
    Sign(&'static str),
}

/// Operators, longer ones first.
const SIGNS: [&str; 33] = [
    "->", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "(", ")", "[", "]", "{", "}", ",", "?",
    ":", "+", "-", "*", "/", "%", "&", "|", "^", "<", ">", "!", "~", ".", ";", "=",
];

/// Operators between two operands, by how strongly they bind.
const LEVELS: [&[(&str, Op)]; 10] = [
    &[("||", Op::LogicOr)],
    &[("&&", Op::LogicAnd)],
    &[("|", Op::Or)],
    &[("^", Op::Xor)],
    &[("&", Op::And)],
    &[("==", Op::Eq), ("!=", Op::Ne)],
    &[("<=", Op::Le), (">=", Op::Ge), ("<", Op::Lt), (">", Op::Gt)],
    &[("<<", Op::Shl), (">>", Op::Shr)],
    &[("+", Op::Add), ("-", Op::Sub)],
    &[("*", Op::Mul), ("/", Op::Div), ("%", Op::Rem)],
];

/// Reads `"template", argument, …`. `None` if the text is not understood.
pub fn parse_print(text: &str) -> Option<Print> {
    if text.len() > MAX_LEN {
        return None;
    }
    let (tokens, places) = tokens(text)?;
    let mut parser = Parser {
        tokens,
        at: 0,
        depth: 0,
        binaries: 0,
    };
    let Expr::Text(template) = parser.primary()? else {
        return None;
    };
    let mut arguments = Vec::new();
    while parser.eat(",") {
        let start = parser.at;
        let found = parser
            .expr()
            .filter(|_| parser.at_end() || matches!(parser.peek(), Some(Token::Sign(","))));
        arguments.push(match found {
            Some(found) => found,
            None if parser.binaries > MAX_BINARY => return None,
            // An argument that is not understood must not lose the others.
            None => {
                parser.at = start;
                parser.skip_argument();
                let from = places.get(start).copied().unwrap_or(text.len());
                let to = places.get(parser.at).copied().unwrap_or(text.len());
                Expr::Source(text.get(from..to)?.trim().to_owned())
            }
        });
    }
    parser.at_end().then_some(Print {
        template,
        arguments,
    })
}

/// Returns the constants in the `print fmt` of a format that the kernel did not replace by their numbers, and their
/// places in the text.
pub(crate) fn constants(format: &str) -> Vec<(&str, usize)> {
    let Some(at) = format.find("print fmt:") else {
        return Vec::new();
    };
    let start = at + "print fmt:".len();
    let text = format.get(start..).unwrap_or_default();
    let (tokens, places) = tokens(text).unwrap_or_default();
    let names = tokens
        .iter()
        .zip(places)
        .enumerate()
        .filter_map(|(index, (token, place))| {
            let Token::Name(name) = token else {
                return None;
            };
            let called = tokens.get(index + 1) == Some(&Token::Sign("("));
            // By convention only constants are in upper case; fields, types and functions are not.
            let constant =
                |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
            let plain = name.bytes().all(constant) && name != "REC" && !called;
            plain.then(|| Some((text.get(place..place + name.len())?, start + place)))?
        });
    names.collect()
}

/// The tokens of a text, each with its offset.
fn tokens(text: &str) -> Option<(Vec<Token>, Vec<usize>)> {
    let bytes = text.as_bytes();
    let (mut out, mut places) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(byte) = bytes.get(at).copied() {
        let (start, before) = (at, out.len());
        let run = |from: usize| {
            bytes
                .get(from..)
                .unwrap_or_default()
                .iter()
                .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_')
                .count()
        };
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => at += 1,
            b'"' => {
                let (string, next) = string(bytes, at + 1)?;
                out.push(Token::Text(string));
                at = next;
            }
            b'\'' => {
                // A character: 'x', or an escape such as '\n'.
                let (value, len) = match (bytes.get(at + 1)?, bytes.get(at + 2)?) {
                    (b'\\', b'n') => (b'\n', 4),
                    (b'\\', b't') => (b'\t', 4),
                    (b'\\', b'0') => (0, 4),
                    (b'\\', other) => (*other, 4),
                    (plain, _) => (*plain, 3),
                };
                if bytes.get(at + len - 1) != Some(&b'\'') {
                    return None;
                }
                out.push(Token::Int(u64::from(value)));
                at += len;
            }
            b'0'..=b'9' => {
                let word = text.get(at..at + run(at))?;
                out.push(Token::Int(integer(word)?));
                at += word.len();
            }
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                let word = text.get(at..at + run(at))?;
                out.push(Token::Name(word.to_owned()));
                at += word.len();
            }
            _ => {
                let sign = SIGNS.iter().find(|sign| {
                    bytes
                        .get(at..)
                        .is_some_and(|b| b.starts_with(sign.as_bytes()))
                })?;
                out.push(Token::Sign(sign));
                at += sign.len();
            }
        }
        places.extend((before < out.len()).then_some(start));
    }
    Some((out, places))
}

/// A constant with its suffixes: `0x10UL`, `017`, `5`.
fn integer(word: &str) -> Option<u64> {
    let digits = word.trim_end_matches(['u', 'U', 'l', 'L']);
    if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok();
    }
    match digits.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => u64::from_str_radix(octal, 8).ok(),
        _ => digits.parse().ok(),
    }
}

/// Reads a string from `at`, behind its opening quote. Returns the text, and the index behind the closing quote.
fn string(bytes: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let mut out = Vec::new();
    loop {
        match bytes.get(at)? {
            b'"' => return Some((out, at + 1)),
            b'\\' => {
                out.push(match bytes.get(at + 1)? {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'0' => 0,
                    other => *other,
                });
                at += 2;
            }
            other => {
                out.push(*other);
                at += 1;
            }
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    binaries: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    fn eat(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(s)) if *s == sign);
        if found {
            self.at += 1;
        }
        found
    }

    /// Moves to the comma behind this argument, or to the end.
    fn skip_argument(&mut self) {
        let mut open = 0usize;
        while let Some(token) = self.peek() {
            match token {
                Token::Sign("(" | "[" | "{") => open += 1,
                Token::Sign(")" | "]" | "}") => open = open.saturating_sub(1),
                Token::Sign(",") if open == 0 => return,
                _ => {}
            }
            self.at += 1;
        }
    }

    fn need(&mut self, sign: &str) -> Option<()> {
        self.eat(sign).then_some(())
    }

    fn name(&mut self) -> Option<String> {
        let Some(Token::Name(name)) = self.peek() else {
            return None;
        };
        let name = name.clone();
        self.at += 1;
        Some(name)
    }

    fn expr(&mut self) -> Option<Expr> {
        self.depth += 1;
        let found = (self.depth <= MAX_DEPTH).then(|| self.choice()).flatten();
        self.depth -= 1;
        found
    }

    fn choice(&mut self) -> Option<Expr> {
        let condition = self.binary(0)?;
        if !self.eat("?") {
            return Some(condition);
        }
        let yes = self.expr()?;
        self.need(":")?;
        let no = self.expr()?;
        Some(Expr::Choice(
            Box::new(condition),
            Box::new(yes),
            Box::new(no),
        ))
    }

    fn binary(&mut self, level: usize) -> Option<Expr> {
        let Some(signs) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.binary(level + 1)?;
        while let Some((_, op)) = signs.iter().find(|(sign, _)| self.eat(sign)) {
            let right = self.binary(level + 1)?;
            left = Expr::Binary(*op, Box::new(left), Box::new(right));
            self.binaries += 1;
            if self.binaries > MAX_BINARY {
                return None;
            }
        }
        Some(left)
    }

    fn unary(&mut self) -> Option<Expr> {
        self.depth += 1;
        let found = (self.depth <= MAX_DEPTH)
            .then(|| self.unary_inner())
            .flatten();
        self.depth -= 1;
        found
    }

    fn unary_inner(&mut self) -> Option<Expr> {
        for (sign, op) in [
            ("!", Op::Not),
            ("~", Op::Flip),
            ("-", Op::Neg),
            ("*", Op::Deref),
            ("&", Op::Address),
        ] {
            if self.eat(sign) {
                return Some(Expr::Unary(op, Box::new(self.unary()?)));
            }
        }
        if self.eat("+") {
            return self.unary();
        }
        if let Some(kind) = self.cast() {
            return Some(Expr::Cast(kind, Box::new(self.unary()?)));
        }
        let mut found = self.primary()?;
        loop {
            if self.eat("[") {
                let index = self.expr()?;
                self.need("]")?;
                found = Expr::Index(Box::new(found), Box::new(index));
            } else {
                return Some(found);
            }
        }
    }

    /// Reads `(type)` in front of an operand. Text that only looks like a cast is left unread.
    fn cast(&mut self) -> Option<String> {
        let before = self.at;
        let found = self.cast_inner();
        if found.is_none() {
            self.at = before;
        }
        found
    }

    fn cast_inner(&mut self) -> Option<String> {
        self.need("(")?;
        let mut words = Vec::new();
        while let Some(word) = self.name() {
            words.push(word);
        }
        if words.is_empty() || words.first().is_some_and(|word| word == "REC") {
            return None;
        }
        let mut kind = words.join(" ");
        while self.eat("*") {
            kind.push('*');
        }
        self.need(")")?;
        // `(x)` in front of a binary operator is not a cast. In front of an operand it can only be a cast.
        let known = kind.ends_with('*')
            || size_of_type(&kind).is_some()
            || words.len() > 1
            || kind.ends_with("_t");
        let operand = matches!(
            self.peek(),
            Some(Token::Int(_) | Token::Name(_) | Token::Text(_) | Token::Sign("(" | "~" | "!"))
        );
        (known || operand).then_some(kind)
    }

    fn primary(&mut self) -> Option<Expr> {
        match self.peek()?.clone() {
            Token::Int(value) => {
                self.at += 1;
                Some(Expr::Int(value))
            }
            Token::Text(mut text) => {
                self.at += 1;
                // Adjacent strings are one string.
                while let Some(Token::Text(more)) = self.peek() {
                    text.extend_from_slice(more);
                    self.at += 1;
                }
                Some(Expr::Text(text))
            }
            Token::Sign("(") => {
                self.at += 1;
                // `(REC)->x`, as macros write it.
                if self.tokens.get(self.at..self.at + 3)
                    == Some(&[
                        Token::Name("REC".into()),
                        Token::Sign(")"),
                        Token::Sign("->"),
                    ])
                {
                    self.at += 3;
                    return self.field();
                }
                let inner = self.expr()?;
                self.need(")")?;
                Some(inner)
            }
            Token::Sign("{") => {
                self.at += 1;
                let first = self.expr()?;
                self.need(",")?;
                let second = self.expr()?;
                self.need("}")?;
                Some(Expr::Pair(Box::new(first), Box::new(second)))
            }
            Token::Name(name) => {
                self.at += 1;
                if name == "REC" && self.eat("->") {
                    return self.field();
                }
                if !self.eat("(") {
                    return Some(Expr::Name(name));
                }
                let mut arguments = Vec::new();
                if !self.eat(")") {
                    if name == "sizeof" {
                        return self.size_of();
                    }
                    loop {
                        arguments.push(self.expr()?);
                        if !self.eat(",") {
                            break;
                        }
                        // A list may end with a comma.
                        if matches!(self.peek(), Some(Token::Sign(")"))) {
                            break;
                        }
                    }
                    self.need(")")?;
                }
                Some(Expr::Call(name, arguments))
            }
            Token::Sign(_) => None,
        }
    }

    /// Reads the names that follow `REC->`.
    fn field(&mut self) -> Option<Expr> {
        let mut name = self.name()?;
        while self.eat(".") {
            name = format!("{name}.{}", self.name()?);
        }
        Some(Expr::Field(match name.strip_prefix("ent.") {
            // `struct trace_entry`: formats call its members the common fields.
            Some(common) => format!("common_{common}"),
            None => name,
        }))
    }

    fn size_of(&mut self) -> Option<Expr> {
        let mut words = Vec::new();
        while let Some(word) = self.name() {
            words.push(word);
        }
        let mut kind = words.join(" ");
        while self.eat("*") {
            kind.push('*');
        }
        self.need(")")?;
        size_of_type(&kind).map(|size| Expr::Int(size as u64))
    }
}
