//! Evaluation of a `print fmt` for one record: the line, and the values of its expressions.

use crate::bytes::until_nul;
use crate::expr::{Expr, Op, Print};
use crate::format::{EventFormat, element, extend};
use crate::names::Names;
use crate::types::size_of_type;
use crate::value::{Value, hex};
use std::borrow::Cow;
use std::fmt::Write;

/// A record, with the format and the names that explain it.
pub struct Scope<'r> {
    /// The kind of event.
    pub format: &'r EventFormat,
    /// The record.
    pub record: &'r [u8],
    /// Symbols and printk formats.
    pub names: &'r Names,
}

const fn int(bits: u64) -> Value<'static> {
    Value::Int { bits, signed: true }
}

fn text(text: impl Into<Vec<u8>>) -> Value<'static> {
    Value::Bytes {
        bytes: Cow::Owned(text.into()),
        size: 1,
        signed: false,
    }
}

impl<'r> Value<'r> {
    /// As an integer: the first 8 bytes of an array.
    pub fn bits(&self) -> u64 {
        match self {
            Self::Int { bits, .. } => *bits,
            Self::Bytes { bytes, .. } => {
                crate::bytes::uint_at(bytes, 0, bytes.len().min(8)).unwrap_or(0)
            }
            Self::Source(_) => 0,
        }
    }

    fn signed(&self) -> bool {
        matches!(self, Self::Int { signed: true, .. })
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes { bytes, .. } => bytes,
            Self::Int { .. } | Self::Source(_) => &[],
        }
    }
}

impl<'r> Scope<'r> {
    /// Returns the line of `print`. An argument that calls a function of the kernel or names an unknown constant
    /// appears as source text, with the known values filled in. `None` if all arguments are of that kind, or if the
    /// template is not understood.
    pub fn line(&self, print: &Print) -> Option<String> {
        let mut values = Vec::new();
        let mut known = print.arguments.is_empty();
        for argument in &print.arguments {
            values.push(match self.eval(argument) {
                Some(value) => {
                    known = true;
                    value
                }
                None => Value::Source(self.source(argument)?),
            });
        }
        let line = || crate::printf::format(&print.template, &values, self.names);
        known.then(line).flatten()
    }

    /// Returns an expression without a value as text for people.
    fn source(&self, expr: &Expr) -> Option<String> {
        let list = |expressions: &[Expr]| {
            let shown: Option<Vec<String>> = expressions
                .iter()
                // Leave out the names of numbers: they would fill the line.
                .filter(|expr| !matches!(expr, Expr::Pair(..)))
                .map(|expr| self.source_or_value(expr))
                .collect();
            Some(shown?.join(", "))
        };
        Some(match expr {
            Expr::Name(name) => name.clone(),
            Expr::Field(name) => format!("REC->{name}"),
            // Leave out statements: they would fill the line.
            Expr::Source(text) if text.len() > 40 => "(...)".to_owned(),
            Expr::Source(text) => text.clone(),
            Expr::Call(name, arguments) => format!("{name}({})", list(arguments)?),
            Expr::Cast(_, inner) => self.source(inner)?,
            Expr::Unary(_, inner) => format!("({})", self.source(inner)?),
            // Both operands are known and the expression has no value: a division by zero.
            Expr::Binary(_, left, right)
                if self.eval(left).is_some() && self.eval(right).is_some() =>
            {
                return None;
            }
            Expr::Binary(op, left, right) => format!(
                "{}{}{}",
                self.source_or_value(left)?,
                op.sign(),
                self.source_or_value(right)?
            ),
            Expr::Choice(condition, yes, no) => match self.eval(condition) {
                Some(value) if value.bits() != 0 => self.source_or_value(yes)?,
                Some(_) => self.source_or_value(no)?,
                None => format!("({})", self.source(condition)?),
            },
            Expr::Int(_) | Expr::Text(_) | Expr::Index(..) | Expr::Pair(..) => return None,
        })
    }

    fn source_or_value(&self, expr: &Expr) -> Option<String> {
        match self.eval(expr) {
            Some(Value::Bytes { bytes, size: 1, .. }) => {
                Some(String::from_utf8_lossy(until_nul(&bytes)).into_owned())
            }
            Some(value) => Some(format!("{:#x}", value.bits())),
            None => self.source(expr),
        }
    }

    fn field(&self, name: &str) -> Option<Value<'r>> {
        let field = self.format.field(name)?;
        if field.element.is_some() || field.size > 8 || field.size == 0 {
            return Some(Value::Bytes {
                bytes: Cow::Borrowed(field.bytes(self.record)?),
                size: field.element.unwrap_or(1),
                signed: field.signed,
            });
        }
        Some(Value::Int {
            bits: field.integer(self.record)?,
            signed: field.signed,
        })
    }

    /// The value of an expression.
    pub fn eval(&self, expr: &Expr) -> Option<Value<'r>> {
        match expr {
            Expr::Int(value) => Some(int(*value)),
            Expr::Text(bytes) => Some(text(bytes.clone())),
            Expr::Field(name) => self.field(name),
            // A constant that the kernel did not replace by its number, or statements.
            Expr::Name(_) | Expr::Pair(..) | Expr::Source(_) => None,
            Expr::Index(array, index) => {
                let array = self.eval(array)?;
                let index = usize::try_from(self.eval(index)?.bits()).ok()?;
                let Value::Bytes {
                    bytes,
                    size,
                    signed,
                } = array
                else {
                    return None;
                };
                Some(Value::Int {
                    bits: element(&bytes, index, size, signed)?,
                    signed,
                })
            }
            Expr::Unary(op, inner) => self.unary(*op, inner),
            Expr::Binary(op, left, right) => self.binary(*op, left, right),
            Expr::Choice(condition, yes, no) => {
                let chosen = if self.eval(condition)?.bits() != 0 {
                    yes
                } else {
                    no
                };
                self.eval(chosen)
            }
            Expr::Cast(kind, inner) => {
                let value = self.eval(inner)?;
                if let Some(kind) = kind.strip_suffix('*') {
                    return Some(pointed_to(value, kind));
                }
                let size = size_of_type(kind).unwrap_or(8);
                let unsigned = is_unsigned(kind);
                let mask = if size >= 8 {
                    u64::MAX
                } else {
                    (1u64 << (size * 8)) - 1
                };
                let bits = value.bits() & mask;
                Some(Value::Int {
                    bits: if unsigned { bits } else { extend(bits, size) },
                    signed: !unsigned,
                })
            }
            Expr::Call(name, arguments) => self.call(name, arguments),
        }
    }

    fn unary(&self, op: Op, inner: &Expr) -> Option<Value<'r>> {
        // `&REC->x` stands for the bytes of the field, of any size.
        if let (Op::Address, Expr::Field(_)) = (op, inner) {
            return self.named(std::slice::from_ref(inner));
        }
        let value = self.eval(inner)?;
        Some(match op {
            Op::Not => int(u64::from(value.bits() == 0)),
            Op::Flip => Value::Int {
                bits: !value.bits(),
                signed: value.signed(),
            },
            Op::Neg => int(value.bits().wrapping_neg()),
            // `*(type *)__get_dynamic_array(x)` is the first element.
            Op::Deref => match value {
                Value::Bytes {
                    ref bytes,
                    size,
                    signed,
                } => Value::Int {
                    bits: element(bytes, 0, size, signed)?,
                    signed,
                },
                Value::Int { .. } | Value::Source(_) => value,
            },
            _ => value,
        })
    }

    fn binary(&self, op: Op, left: &Expr, right: &Expr) -> Option<Value<'r>> {
        let left = self.eval(left)?;
        match op {
            Op::LogicAnd if left.bits() == 0 => return Some(int(0)),
            Op::LogicOr if left.bits() != 0 => return Some(int(1)),
            _ => {}
        }
        let right = self.eval(right)?;
        let signed = left.signed() && right.signed();
        let (a, b) = (left.bits(), right.bits());
        let (sa, sb) = (a.cast_signed(), b.cast_signed());
        let bits = match op {
            Op::Add => a.wrapping_add(b),
            Op::Sub => a.wrapping_sub(b),
            Op::Mul => a.wrapping_mul(b),
            Op::Div if signed => sa.checked_div(sb)?.cast_unsigned(),
            Op::Div => a.checked_div(b)?,
            Op::Rem if signed => sa.checked_rem(sb)?.cast_unsigned(),
            Op::Rem => a.checked_rem(b)?,
            Op::And => a & b,
            Op::Or => a | b,
            Op::Xor => a ^ b,
            Op::Shl => a.checked_shl(u32::try_from(b).ok()?).unwrap_or(0),
            Op::Shr if left.signed() => (sa >> b.min(63)).cast_unsigned(),
            Op::Shr => a.checked_shr(u32::try_from(b).ok()?).unwrap_or(0),
            Op::LogicAnd | Op::LogicOr => u64::from(b != 0),
            Op::Eq => u64::from(a == b),
            Op::Ne => u64::from(a != b),
            Op::Lt => u64::from(if signed { sa < sb } else { a < b }),
            Op::Le => u64::from(if signed { sa <= sb } else { a <= b }),
            Op::Gt => u64::from(if signed { sa > sb } else { a > b }),
            Op::Ge => u64::from(if signed { sa >= sb } else { a >= b }),
            _ => return None,
        };
        let signed = match op {
            Op::Shl | Op::Shr => left.signed(),
            Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Rem | Op::And | Op::Or | Op::Xor => signed,
            _ => true,
        };
        Some(Value::Int { bits, signed })
    }

    /// The bytes of the field that the first argument names.
    fn named(&self, arguments: &[Expr]) -> Option<Value<'r>> {
        match arguments.first()? {
            Expr::Name(name) | Expr::Field(name) => {
                let field = self.format.field(name)?;
                Some(Value::Bytes {
                    bytes: Cow::Borrowed(field.bytes(self.record)?),
                    size: field.element.unwrap_or(1),
                    signed: field.signed,
                })
            }
            other => self.eval(other),
        }
    }

    fn integer(&self, arguments: &[Expr], index: usize) -> Option<u64> {
        Some(self.eval(arguments.get(index)?)?.bits())
    }

    fn call(&self, name: &str, arguments: &[Expr]) -> Option<Value<'r>> {
        Some(match name {
            "__get_str" | "__get_rel_str" => {
                let value = self.named(arguments)?;
                text(until_nul(value.bytes()))
            }
            "__get_dynamic_array"
            | "__get_rel_dynamic_array"
            | "__get_sockaddr"
            | "__get_rel_sockaddr" => self.named(arguments)?,
            "__get_dynamic_array_len" | "__get_rel_dynamic_array_len" => {
                int(self.named(arguments)?.bytes().len() as u64)
            }
            "__get_bitmask" | "__get_rel_bitmask" | "__get_cpumask" | "__get_rel_cpumask" => {
                text(bitmask(self.named(arguments)?.bytes()))
            }
            "__print_flags" | "__print_flags_u64" => {
                let mut rest = self.integer(arguments, 0)?;
                let delimiter = self.eval(arguments.get(1)?)?;
                let mut parts: Vec<u8> = Vec::new();
                // As `trace_print_flags_seq` does: list each flag that is fully set, until no bit is left.
                for pair in arguments.get(2..)? {
                    if rest == 0 {
                        break;
                    }
                    let Some((mask, shown)) = self.pair(pair)? else {
                        continue;
                    };
                    if rest & mask == mask {
                        rest &= !mask;
                        add(&mut parts, delimiter.bytes(), &shown);
                    }
                }
                if rest != 0 {
                    add(
                        &mut parts,
                        delimiter.bytes(),
                        format!("{rest:#x}").as_bytes(),
                    );
                }
                text(parts)
            }
            "__print_symbolic" | "__print_symbolic_u64" => {
                let value = self.integer(arguments, 0)?;
                let mut shown = None;
                for pair in arguments.get(1..)? {
                    if let Some((_, name)) = self.pair(pair)?.filter(|(key, _)| *key == value) {
                        shown = Some(name);
                        break;
                    }
                }
                text(shown.unwrap_or_else(|| format!("{value:#x}").into_bytes()))
            }
            "__print_hex" | "__print_hex_str" => {
                let value = self.named(arguments)?;
                let len = usize::try_from(self.integer(arguments, 1)?).ok()?;
                let separator = if name == "__print_hex" { " " } else { "" };
                let bytes = value.bytes().get(..len).unwrap_or(value.bytes());
                text(hex(bytes, separator))
            }
            "__print_array" => {
                let value = self.named(arguments)?;
                let count = usize::try_from(self.integer(arguments, 1)?).ok()?;
                let size = usize::try_from(self.integer(arguments, 2)?).ok()?;
                text(list(value.bytes(), count, size))
            }
            "__print_dynamic_array" => {
                let value = self.named(arguments)?;
                let size = usize::try_from(self.integer(arguments, 1)?).ok()?;
                text(list(value.bytes(), usize::MAX, size))
            }
            "__print_ns_to_secs" => int(self.integer(arguments, 0)? / 1_000_000_000),
            "__print_ns_without_secs" => int(self.integer(arguments, 0)? % 1_000_000_000),
            "__builtin_expect" | "__builtin_constant_p" => self.eval(arguments.first()?)?,
            _ => return None,
        })
    }

    /// Returns a number and its name; inner `None` if the number is not known.
    fn pair(&self, expr: &Expr) -> Option<Option<(u64, Vec<u8>)>> {
        let Expr::Pair(key, name) = expr else {
            return None;
        };
        let Some(key) = self.eval(key) else {
            return Some(None);
        };
        Some(Some((key.bits(), self.eval(name)?.bytes().to_vec())))
    }
}

fn add(out: &mut Vec<u8>, delimiter: &[u8], part: &[u8]) {
    if !out.is_empty() {
        out.extend_from_slice(delimiter);
    }
    out.extend_from_slice(part);
}

/// At most `count` elements of `size` bytes, as `trace_print_array_seq` shows them.
fn list(bytes: &[u8], count: usize, size: usize) -> String {
    let mut out = String::from("{");
    for index in 0..count {
        let Some(item) = element(bytes, index, size, false) else {
            break;
        };
        let _ = write!(out, "{}{item:#x}", if index > 0 { "," } else { "" });
    }
    out.push('}');
    out
}

/// A pointer to elements of type `kind`.
fn pointed_to<'r>(value: Value<'r>, kind: &str) -> Value<'r> {
    match (value, size_of_type(kind.trim_end())) {
        (Value::Bytes { bytes, .. }, Some(size)) => Value::Bytes {
            bytes,
            size,
            signed: !is_unsigned(kind),
        },
        (value, _) => value,
    }
}

/// Whether a C type of the kernel's formats is an unsigned one.
fn is_unsigned(kind: &str) -> bool {
    kind.contains("unsigned")
        || kind.trim_start_matches('_').starts_with('u')
        || matches!(kind.trim_end(), "size_t" | "gfp_t" | "sector_t" | "bool")
}

/// Words of 32 bits, the highest first (`bitmap_print`, `%*pb`).
fn bitmask(bytes: &[u8]) -> String {
    let words: Vec<u32> = bytes
        .chunks(4)
        .filter_map(|word| crate::bytes::uint_at(word, 0, word.len()))
        .filter_map(|word| u32::try_from(word).ok())
        .collect();
    let mut out = String::new();
    for (index, word) in words.iter().rev().enumerate() {
        let _ = write!(out, "{}{word:08x}", if index > 0 { "," } else { "" });
    }
    out
}
