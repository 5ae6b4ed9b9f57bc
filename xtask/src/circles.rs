//! Test that no file of a crate depends on itself through other files.
//!
//! A file depends on the files that define the items which its paths name. Re-exports are followed to the definition;
//! the file that re-exports an item does not depend on it. Code for tests does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

/// The path of a module inside its crate; empty for the root.
type Name = Vec<String>;

/// One source file.
#[derive(Default)]
struct Source {
    children: BTreeMap<String, Name>,
    /// Paths that `use` brings in, by their names in this file.
    uses: BTreeMap<String, Name>,
    /// Paths that the code names, without those of `pub use`.
    paths: BTreeSet<Name>,
}

/// The files of a crate, by their modules.
type Crate = BTreeMap<Name, Source>;

/// Collects the names that one file uses.
#[derive(Default)]
struct Paths {
    source: Source,
    modules: Vec<String>,
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else {
            return false;
        };
        list.path.is_ident("cfg")
            && list
                .tokens
                .to_string()
                .split(|letter: char| !letter.is_alphanumeric())
                .any(|word| word == "test")
    })
}

fn flatten(tree: &UseTree, before: &mut Name, found: &mut Vec<(String, Name)>) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, found);
            before.pop();
        }
        UseTree::Group(group) => group
            .items
            .iter()
            .for_each(|item| flatten(item, before, found)),
        UseTree::Glob(_) => found.push(("*".to_owned(), before.clone())),
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            let full = match name.as_str() {
                "self" => before.clone(),
                _ => before.iter().cloned().chain([name.clone()]).collect(),
            };
            found.push((full.last().cloned().unwrap_or(name), full));
        }
        UseTree::Rename(rename) => {
            let full = before
                .iter()
                .cloned()
                .chain([rename.ident.to_string()])
                .collect();
            found.push((rename.rename.to_string(), full));
        }
    }
}

impl<'s> Visit<'s> for Paths {
    fn visit_item(&mut self, item: &'s Item) {
        let attributes = match item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'s ItemMod) {
        match item.content {
            Some(_) => visit::visit_item_mod(self, item),
            None => self.modules.push(item.ident.to_string()),
        }
    }

    fn visit_item_use(&mut self, item: &'s ItemUse) {
        let mut found = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut found);
        for (name, path) in found {
            if matches!(item.vis, Visibility::Inherited) {
                self.source.paths.insert(path.clone());
            }
            self.source.uses.insert(name, path);
        }
    }

    fn visit_path(&mut self, path: &'s syn::Path) {
        let names: Name = path
            .segments
            .iter()
            .map(|part| part.ident.to_string())
            .collect();
        if names.len() > 1 {
            self.source.paths.insert(names);
        }
        visit::visit_path(self, path);
    }
}

/// Reads a file and every file that it declares.
fn read(path: &Path, name: Name, all: &mut Crate) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut paths = Paths::default();
    paths.visit_file(&syn::parse_file(&text).unwrap());
    let folder = match path.file_name().and_then(|name| name.to_str()) {
        Some("mod.rs" | "lib.rs" | "main.rs") => path.parent().unwrap().to_owned(),
        _ => path.with_extension(""),
    };
    let Paths {
        mut source,
        modules,
    } = paths;
    for module in modules {
        let file = [
            folder.join(format!("{module}.rs")),
            folder.join(&module).join("mod.rs"),
        ];
        // A file that is included by `#[path]` belongs to another crate.
        if let Some(file) = file.iter().find(|file| file.exists()) {
            let child: Name = name.iter().cloned().chain([module.clone()]).collect();
            read(file, child.clone(), all);
            source.children.insert(module, child);
        }
    }
    all.insert(name, source);
}

/// The module that defines the item of `path`, written in module `at`; `None` if it is outside the crate.
fn resolve(all: &Crate, at: &Name, path: &[String], depth: usize) -> Option<Name> {
    if depth > 16 {
        return None;
    }
    let mut module = at.clone();
    let mut rest = path;
    match rest.first()?.as_str() {
        "crate" => {
            module.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|name| name == "super") {
                module.pop();
                rest = &rest[1..];
            }
        }
        first => {
            let here = &all[at];
            if !here.children.contains_key(first) && !here.uses.contains_key(first) {
                return None;
            }
        }
    }
    while let Some((name, behind)) = rest.split_first() {
        let here = &all[&module];
        if let Some(child) = here.children.get(name) {
            module = child.clone();
            rest = behind;
        } else if let Some(used) = here.uses.get(name) {
            let path: Name = used.iter().chain(behind).cloned().collect();
            // `use anyhow::anyhow` names itself.
            return match used.first() == Some(name) {
                true => None,
                false => resolve(all, &module, &path, depth + 1),
            };
        } else {
            break;
        }
    }
    Some(module)
}

/// The files that each file depends on.
fn dependencies(all: &Crate) -> BTreeMap<&Name, BTreeSet<Name>> {
    all.iter()
        .map(|(name, source)| {
            let targets = source
                .paths
                .iter()
                .filter_map(|path| resolve(all, name, path, 0));
            (name, targets.filter(|target| target != name).collect())
        })
        .collect()
}

/// A circle of dependencies for each file that has one; the same circle is listed once.
fn circles(all: &Crate) -> Vec<String> {
    let edges = dependencies(all);
    let mut found = BTreeMap::new();
    for &start in edges.keys() {
        let mut ways = vec![vec![start.clone()]];
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop() {
            let last = way.last().unwrap();
            if let Some(next) = edges[last].iter().find(|next| *next == start) {
                debug_assert_eq!(next, start);
                let members: BTreeSet<Name> = way.iter().cloned().collect();
                let shown: Vec<_> = way.iter().chain([start]).map(show).collect();
                found.entry(members).or_insert(shown.join(" -> "));
                break;
            }
            for next in &edges[last] {
                if seen.insert(next.clone()) {
                    let mut way = way.clone();
                    way.push(next.clone());
                    ways.insert(0, way);
                }
            }
        }
    }
    found.into_values().collect()
}

fn show(name: &Name) -> String {
    match name.is_empty() {
        true => "the root".to_owned(),
        false => name.join("::"),
    }
}

/// The roots of all crates, those of the kernel modules included.
fn roots(folder: &Path) -> Vec<PathBuf> {
    let crates = std::fs::read_dir(folder.join("crates")).unwrap();
    let mut folders: Vec<PathBuf> = crates.map(|entry| entry.unwrap().path()).collect();
    let others = [
        "module",
        "module/boundary",
        "module/decide",
        "module/driver",
        "module/khofs",
        "module/khofs/decide",
        "xtask",
        "xtask/cases",
        "xtask/dist",
        "xtask/guest",
        "xtask/lab",
        "fuzz",
    ];
    folders.extend(others.map(|other| folder.join(other)));
    let mut roots: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| [folder.join("src/lib.rs"), folder.join("src/main.rs")])
        .collect();
    roots.push(folder.join("crates/kexec/arrival/main.rs"));
    roots.retain(|root| root.exists());
    roots.sort();
    roots
}

#[test]
fn no_crate_has_a_circle_of_files() {
    let folder = kho_lab::workspace::root();
    let (mut wrong, mut files) = (Vec::new(), 0);
    for root in roots(folder) {
        let mut all = Crate::new();
        read(&root, Vec::new(), &mut all);
        files += all.len();
        let shown = root.strip_prefix(folder).unwrap().display().to_string();
        wrong.extend(
            circles(&all)
                .into_iter()
                .map(|circle| format!("{shown}: {circle}")),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(files > 250, "only {files} files were read");
}

#[test]
fn a_circle_is_found_through_a_re_export() {
    let file = |text: &str| {
        let mut paths = Paths::default();
        paths.visit_file(&syn::parse_str(text).unwrap());
        paths.source
    };
    let name = |name: &str| vec![name.to_owned()];
    let mut root = file("pub use b::B;");
    root.children = ["a", "b"]
        .map(|child| (child.to_owned(), name(child)))
        .into();
    let mut all = Crate::from([(Vec::new(), root)]);
    all.insert(name("a"), file("use crate::B; pub struct A(B);"));
    all.insert(
        name("b"),
        file("pub struct B; #[cfg(test)] mod tests { use crate::a::A; }"),
    );
    assert_eq!(circles(&all), Vec::<String>::new());
    all.insert(name("b"), file("pub struct B(Option<Box<super::a::A>>);"));
    assert_eq!(circles(&all), ["a -> b -> a"]);
}
