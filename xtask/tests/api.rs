//! The public interface of the published crates, compared with `api.txt` beside their manifests.
//!
//! After an intended change, run `KHO_UPDATE_API=1 cargo test -p xtask --test api` and read the difference before you
//! commit it. A line that vanished or changed breaks users: describe it under "Changed" in CHANGELOG.md.
//!
//! The test reads items from the sources, under every path that leads to them, and does not see items that macros make.
//! It shows the features and targets that an item depends on, and does not evaluate them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use quote::ToTokens;
use syn::{
    Attribute, Fields, ImplItem, Item, ItemImpl, Meta, Signature, TraitItem, Type, UseTree,
    Visibility,
};

/// The path of a module inside its crate; empty for the root.
type Name = Vec<String>;

#[derive(Default)]
struct Module {
    items: Vec<Item>,
}

struct Source {
    modules: BTreeMap<Name, Module>,
    /// Implementations for a type, by the type's name: if two types share a name, both are shown with all of them.
    impls: BTreeMap<String, BTreeSet<String>>,
}

fn public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Whether an item is code for tests, for the documentation's own tests, or for proofs.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Meta::List(list) = &attribute.meta else {
            return false;
        };
        let words = list.tokens.to_string();
        let mut words = words.split(|letter: char| !letter.is_alphanumeric());
        list.path.is_ident("cfg") && words.any(|word| word == "test" || word == "doctest")
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Tokens as text, with the usual blanks between them.
fn show(tokens: &impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string().replace('\n', " ");
    for (from, to) in [
        (" :: ", "::"),
        (":: ", "::"),
        (" ::", "::"),
        (" :", ":"),
        (" ,", ","),
        (" ;", ";"),
        ("& ", "&"),
        (" < ", "<"),
        ("< ", "<"),
        (" <", "<"),
        (" >", ">"),
        ("( ", "("),
        (" )", ")"),
        (" (", "("),
        ("[ ", "["),
        (" ]", "]"),
        (" ! ", "!"),
        ("* ", "*"),
        (",)", ")"),
        (",>", ">"),
        ("->", " -> "),
        ("  ", " "),
        ("-> (", "-> ("),
    ] {
        text = text.replace(from, to);
    }
    text
}

/// The attributes that are part of the interface: `derive`, `non_exhaustive`, `must_use`, `repr`, `deprecated`,
/// conditions.
fn marks(attributes: &[Attribute]) -> String {
    let known = [
        "cfg",
        "derive",
        "deprecated",
        "must_use",
        "non_exhaustive",
        "repr",
    ];
    let marks = attributes.iter().filter(|attribute| {
        let name = attribute.path().get_ident().map(ToString::to_string);
        name.is_some_and(|name| known.contains(&name.as_str()))
    });
    marks.map(|mark| show(&mark.meta) + " ").collect()
}

impl Source {
    fn read(file: &Path) -> Self {
        let mut source = Self {
            modules: BTreeMap::new(),
            impls: BTreeMap::new(),
        };
        let text = std::fs::read_to_string(file).unwrap();
        let items = syn::parse_file(&text).unwrap().items;
        source.add(Name::new(), items, file.parent().unwrap());
        source
    }

    /// Adds a module and the modules below it, whose files are in `folder`.
    fn add(&mut self, name: Name, items: Vec<Item>, folder: &Path) {
        let mut items: Vec<Item> = items
            .into_iter()
            .filter(|item| !is_for_tests(attributes(item)))
            .collect();
        for item in &mut items {
            match item {
                Item::Mod(child) => {
                    let word = child.ident.to_string();
                    let path: Name = name.iter().cloned().chain([word.clone()]).collect();
                    let folder = folder.join(&word);
                    if let Some((_, items)) = child.content.take() {
                        self.add(path, items, &folder);
                        continue;
                    }
                    let files = [folder.with_extension("rs"), folder.join("mod.rs")];
                    let file = files.iter().find(|file| file.exists());
                    let file = file.unwrap_or_else(|| panic!("no file for {path:?}"));
                    let text = std::fs::read_to_string(file).unwrap();
                    self.add(path, syn::parse_file(&text).unwrap().items, &folder);
                }
                Item::Impl(item) => self.add_impl(item),
                _ => {}
            }
        }
        self.modules.insert(name, Module { items });
    }

    fn add_impl(&mut self, item: &ItemImpl) {
        let Type::Path(of) = &*item.self_ty else {
            return;
        };
        let of = of.path.segments.last().unwrap().ident.to_string();
        let lines = self.impls.entry(of).or_default();
        let head = format!("impl{} ", show(&item.generics));
        let bounds = show(&item.generics.where_clause);
        if let Some((_, name, _)) = &item.trait_ {
            let line = format!("{head}{} for {} {bounds}", show(name), show(&item.self_ty));
            lines.insert(line.trim_end().to_owned());
            return;
        }
        let head = format!("{head}{}", show(&item.self_ty));
        for member in &item.items {
            let line = match member {
                ImplItem::Fn(member) if public(&member.vis) => {
                    marks(&member.attrs) + &signature(&member.sig)
                }
                ImplItem::Const(member) if public(&member.vis) => {
                    format!("const {}: {}", member.ident, show(&member.ty))
                }
                _ => continue,
            };
            lines.insert(format!("{head}: {line}"));
        }
    }

    /// Writes every public item of a module under the path `shown`.
    fn write(&self, module: &Name, shown: &str, out: &mut BTreeSet<String>) {
        for item in &self.modules[module].items {
            match item {
                Item::Mod(child) if public(&child.vis) => {
                    let name = child.ident.to_string();
                    let path = module.iter().cloned().chain([name.clone()]).collect();
                    out.insert(format!("{shown}::{name}: {}mod", marks(&child.attrs)));
                    self.write(&path, &format!("{shown}::{name}"), out);
                }
                Item::Use(item) if public(&item.vis) => {
                    self.write_use(module, &item.tree, &mut Vec::new(), shown, out);
                }
                _ => self.write_item(item, None, shown, out),
            }
        }
    }

    /// Follows a `pub use` to the item that it names.
    fn write_use(
        &self,
        module: &Name,
        tree: &UseTree,
        before: &mut Name,
        shown: &str,
        out: &mut BTreeSet<String>,
    ) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.write_use(module, &path.tree, before, shown, out);
                before.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.write_use(module, tree, before, shown, out);
                }
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                self.write_named(module, before, &name, &name, shown, out);
            }
            UseTree::Rename(name) => {
                let (from, to) = (name.ident.to_string(), name.rename.to_string());
                self.write_named(module, before, &from, &to, shown, out);
            }
            UseTree::Glob(_) => match self.module_of(module, before) {
                Some(from) => self.write(&from, shown, out),
                None => {
                    out.insert(format!("{shown}::*: use {}::*", before.join("::")));
                }
            },
        }
    }

    fn write_named(
        &self,
        module: &Name,
        before: &[String],
        name: &str,
        renamed: &str,
        shown: &str,
        out: &mut BTreeSet<String>,
    ) {
        let Some(from) = self.module_of(module, before) else {
            let path = before.join("::");
            out.insert(format!("{shown}::{renamed}: use {path}::{name}"));
            return;
        };
        let below: Name = from.iter().cloned().chain([name.to_owned()]).collect();
        if self.modules.contains_key(&below) {
            out.insert(format!("{shown}::{renamed}: mod"));
            self.write(&below, &format!("{shown}::{renamed}"), out);
        }
        for item in &self.modules[&from].items {
            if let Item::Use(again) = item {
                let mut found = Vec::new();
                flatten(&again.tree, &mut Vec::new(), &mut found);
                for (to, path, original) in found {
                    if to == name {
                        self.write_named(&from, &path, &original, renamed, shown, out);
                    }
                }
            } else if self.name_of(item).as_deref() == Some(name) {
                self.write_item(item, Some(renamed), shown, out);
            }
        }
    }

    /// The module of this crate that a path leads to.
    fn module_of(&self, at: &Name, path: &[String]) -> Option<Name> {
        let mut found = at.clone();
        for (index, word) in path.iter().enumerate() {
            match word.as_str() {
                "crate" => found.clear(),
                "self" => {}
                "super" => drop(found.pop()),
                name => {
                    found.push(name.to_owned());
                    if !self.modules.contains_key(&found) {
                        assert!(index == 0, "{path:?} of {at:?} was not followed");
                        return None;
                    }
                }
            }
        }
        Some(found)
    }

    fn name_of(&self, item: &Item) -> Option<String> {
        Some(match item {
            Item::Const(item) => item.ident.to_string(),
            Item::Enum(item) => item.ident.to_string(),
            Item::Fn(item) => item.sig.ident.to_string(),
            Item::Static(item) => item.ident.to_string(),
            Item::Struct(item) => item.ident.to_string(),
            Item::Trait(item) => item.ident.to_string(),
            Item::Type(item) => item.ident.to_string(),
            _ => return None,
        })
    }

    fn write_item(
        &self,
        item: &Item,
        renamed: Option<&str>,
        shown: &str,
        out: &mut BTreeSet<String>,
    ) {
        let Some(own) = self.name_of(item) else {
            return;
        };
        let path = format!("{shown}::{}", renamed.unwrap_or(&own));
        let marks = marks(attributes(item));
        match item {
            Item::Const(item) if public(&item.vis) => {
                let value = show(&item.expr);
                out.insert(format!("{path}: {marks}const {} = {value}", show(&item.ty)));
            }
            Item::Static(item) if public(&item.vis) => {
                out.insert(format!("{path}: {marks}static {}", show(&item.ty)));
            }
            Item::Fn(item) if public(&item.vis) => {
                out.insert(format!("{path}: {marks}{}", signature(&item.sig)));
            }
            Item::Type(item) if public(&item.vis) => {
                let generics = show(&item.generics);
                out.insert(format!(
                    "{path}: {marks}type{generics} = {}",
                    show(&item.ty)
                ));
            }
            Item::Struct(item) if public(&item.vis) => {
                let generics = show(&item.generics);
                let bounds = show(&item.generics.where_clause);
                out.insert(
                    format!("{path}: {marks}struct{generics} {bounds}")
                        .trim_end()
                        .to_owned(),
                );
                fields(&item.fields, &path, true, out);
                self.write_impls(&own, &path, out);
            }
            Item::Enum(item) if public(&item.vis) => {
                out.insert(format!("{path}: {marks}enum{}", show(&item.generics)));
                for variant in &item.variants {
                    let path = format!("{path}::{}", variant.ident);
                    let value = variant.discriminant.as_ref();
                    let value = value.map(|(_, value)| format!(" = {}", show(value)));
                    out.insert(format!("{path}: variant{}", value.unwrap_or_default()));
                    fields(&variant.fields, &path, false, out);
                }
                self.write_impls(&own, &path, out);
            }
            Item::Trait(item) if public(&item.vis) => {
                let mut head = format!("{path}: {marks}trait{}", show(&item.generics));
                if !item.supertraits.is_empty() {
                    let _ = write!(head, ": {}", show(&item.supertraits));
                }
                out.insert(head);
                for member in &item.items {
                    let line = match member {
                        TraitItem::Fn(member) => {
                            let provided = if member.default.is_some() {
                                " { .. }"
                            } else {
                                ""
                            };
                            signature(&member.sig) + provided
                        }
                        other => show(other),
                    };
                    out.insert(format!("{path}: trait: {line}"));
                }
            }
            _ => {}
        }
    }

    fn write_impls(&self, own: &str, path: &str, out: &mut BTreeSet<String>) {
        let lines = self.impls.get(own).into_iter().flatten();
        out.extend(lines.map(|line| format!("{path}: {line}")));
    }
}

fn flatten(tree: &UseTree, before: &mut Name, found: &mut Vec<(String, Name, String)>) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, found);
            before.pop();
        }
        UseTree::Group(group) => group
            .items
            .iter()
            .for_each(|tree| flatten(tree, before, found)),
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            found.push((name.clone(), before.clone(), name));
        }
        UseTree::Rename(name) => {
            found.push((
                name.rename.to_string(),
                before.clone(),
                name.ident.to_string(),
            ));
        }
        UseTree::Glob(_) => {}
    }
}

fn signature(signature: &Signature) -> String {
    show(signature)
}

fn fields(fields: &Fields, path: &str, checked: bool, out: &mut BTreeSet<String>) {
    let mut hidden = false;
    for (index, field) in fields.iter().enumerate() {
        let name = field.ident.as_ref();
        let name = name.map_or_else(|| index.to_string(), ToString::to_string);
        match !checked || public(&field.vis) {
            true => drop(out.insert(format!("{path}::{name}: field {}", show(&field.ty)))),
            false => hidden = true,
        }
    }
    if hidden {
        out.insert(format!("{path}: has private fields"));
    }
}

fn interface(name: &str, folder: &Path) -> String {
    let source = Source::read(&folder.join("src/lib.rs"));
    let mut lines = BTreeSet::new();
    source.write(&Name::new(), name, &mut lines);
    let lines: Vec<String> = lines.into_iter().collect();
    lines.join("\n") + "\n"
}

fn check(name: &str, folder: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(folder);
    let file = folder.join("api.txt");
    let found = interface(name, &folder);
    if std::env::var_os("KHO_UPDATE_API").is_some() {
        std::fs::write(&file, &found).unwrap();
    }
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    let set = |text: &str| -> BTreeSet<String> { text.lines().map(str::to_owned).collect() };
    let (old, new) = (set(&known), set(&found));
    let gone = old.difference(&new).map(|line| format!("- {line}\n"));
    let come = new.difference(&old).map(|line| format!("+ {line}\n"));
    let difference: String = gone.chain(come).collect();
    assert!(
        known == found,
        "the interface of {name} is not that of {}; if it is meant to be, run this test with KHO_UPDATE_API=1:\n{difference}",
        file.display()
    );
}

#[test]
fn kho() {
    check("kho", "crates/kho");
}

#[test]
fn kho_kexec() {
    check("kho_kexec", "crates/kexec");
}

/// Test of the reader itself: it leaves out private items and shows a re-exported item at the path where users meet it.
#[test]
fn what_is_seen() {
    let folder = std::env::temp_dir().join(format!("kho-api-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("src/inner")).unwrap();
    let write =
        |name: &str, text: &str| std::fs::write(folder.join("src").join(name), text).unwrap();
    write(
        "lib.rs",
        "mod inner; pub mod open { pub fn f(x: &mut [u8]) -> Option<u8> { None } fn g() {} }\n\
         pub use inner::{A, deep::B as C}; pub use std::fmt::Write; #[cfg(test)] pub fn t() {}",
    );
    write(
        "inner.rs",
        "pub mod deep; #[derive(Debug)] pub struct A<'a> { pub x: &'a str, y: u8 } pub struct Hidden;\n\
         impl A<'_> { pub fn y(&self) -> u8 { self.y } fn z(&self) {} } impl Clone for A<'_> { fn clone(&self) -> Self { todo!() } }",
    );
    write(
        "inner/deep.rs",
        "#[non_exhaustive] pub enum B { One(u8), Two { at: u64 } }",
    );
    let found = interface("x", &folder);
    std::fs::remove_dir_all(&folder).unwrap();
    let expected = "\
x::A: derive(Debug) struct<'a>
x::A: has private fields
x::A: impl A<'_>: fn y(&self) -> u8
x::A: impl Clone for A<'_>
x::A::x: field &'a str
x::C: non_exhaustive enum
x::C::One: variant
x::C::One::0: field u8
x::C::Two: variant
x::C::Two::at: field u64
x::Write: use std::fmt::Write
x::open: mod
x::open::f: fn f(x: &mut [u8]) -> Option<u8>
";
    assert_eq!(found, expected);
}
