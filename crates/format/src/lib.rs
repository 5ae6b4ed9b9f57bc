//! Tools for state trees beside the handover itself. They show a tree ([`text`], [`view`], [`dts`]), check it against
//! the schemas and the contract ([`schema`], [`validate`]), compare two trees ([`diff`]) and tell whether another build
//! would understand the trees that this build writes ([`catalogue`]). [`mainline`] reads the state of a kernel with
//! built-in Kexec HandOver.
//!
//! # The JSON form of a tree
//!
//! The schemas in `schemas/` apply to one node at a time. A node becomes `{"name", "schema", "properties",
//! "children"}`. `schema` is the node's `compatible` if a schema for it exists, else `null`. The schema applies to
//! `properties`. The schema's `x-kho-type` decides the JSON of a property:
//!
//! | `x-kho-type` | JSON |
//! | --- | --- |
//! | `u32`, `u64` | an integer, exact up to 2^64 - 1 (some readers round above 2^53) |
//! | `str` | a string, without the NUL |
//! | `bytes` | a string of lower-case hexadecimal digits; with `x-kho-show: path` the text, where `\` is `\\` and every byte that is not printable UTF-8 is `\x..` |
//! | `flag` | `true`; the property has no bytes |
//! | `mem` | an array of `{"addr": integer, "len": integer}` |
//!
//! A value of another type than the schema's is `{"error", "bytes"}`, which no schema accepts. If no schema lists a
//! property, the type of its value is guessed: an empty value is `true`; another value is text if all of it is
//! printable, else an integer if it has four or eight bytes, else hexadecimal digits. `mem` is always ranges.

#![forbid(unsafe_code)]

pub mod catalogue;
pub mod diff;
pub mod dts;
pub mod human;
pub mod mainline;
pub mod schema;
pub mod svg;
pub mod text;
pub mod validate;
pub mod view;
