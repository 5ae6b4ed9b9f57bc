//! The schemas are valid JSON Schema, agree with the contract, and equal the shipped and documented ones.

mod common;

use kho::abi::{self, Handover, ProblemKind, ftrace, kernel_part, khofs, late};
use kho::tree::{Reader, Writer, seal};
use kho::{PhysAddr, PhysRange};
use kho_format::schema::{self, KEYWORDS, Type};
use kho_format::view;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use yaml_rust2::{Yaml, YamlLoader};

fn to_json(yaml: &Yaml) -> Json {
    match yaml {
        Yaml::String(text) => Json::from(text.as_str()),
        Yaml::Integer(number) => Json::from(*number),
        Yaml::Boolean(truth) => Json::from(*truth),
        Yaml::Array(items) => items.iter().map(to_json).collect(),
        Yaml::Hash(hash) => hash
            .iter()
            .map(|(key, value)| (key.as_str().unwrap().to_owned(), to_json(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => panic!("a schema has no use for {other:?}"),
    }
}

/// Every file of `schemas/`: its stem and content.
fn written() -> Vec<(String, Json)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(common::workspace().join("schemas"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "yaml"))
        .collect();
    files.sort();
    files
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let documents = YamlLoader::load_from_str(&text).unwrap();
            assert_eq!(documents.len(), 1, "{}", path.display());
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (stem, to_json(&documents[0]))
        })
        .collect()
}

#[test]
fn what_is_shipped_is_what_is_written() {
    let all: Map<String, Json> = written().into_iter().collect();
    assert!(all.len() >= 5);
    let text = serde_json::to_string_pretty(&Json::Object(all)).unwrap() + "\n";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/schema/schemas.json");
    common::golden(&path, &text);
}

#[test]
fn an_independent_validator_takes_them() {
    for (name, document) in written() {
        assert_eq!(document["$id"], format!("urn:kho:schema:{name}"));
        assert_eq!(document["properties"]["compatible"]["const"], name);
        if let Err(error) = jsonschema::meta::validate(&document) {
            panic!("{name}: {error}");
        }
        jsonschema::draft202012::new(&document).unwrap();
    }
}

/// Keywords for people, which validators ignore.
const ANNOTATIONS: &[&str] = &["$schema", "$id", "title", "description"];

fn keywords(document: &Json, path: &str) {
    let Json::Object(rules) = document else {
        return;
    };
    for (keyword, rule) in rules {
        let known = KEYWORDS.contains(&keyword.as_str())
            || ANNOTATIONS.contains(&keyword.as_str())
            || keyword.starts_with("x-kho-");
        assert!(
            known,
            "{path}: the validator of kho does not know {keyword}"
        );
        match keyword.as_str() {
            "properties" => {
                for (name, inner) in rule.as_object().unwrap() {
                    keywords(inner, &format!("{path}/{name}"));
                }
            }
            "items" | "if" | "then" | "else" => keywords(rule, &format!("{path}/{keyword}")),
            _ => {}
        }
    }
}

#[test]
fn they_use_what_is_understood_and_say_what_is_needed() {
    for (name, document) in written() {
        keywords(&document, &name);
        for needed in [
            "title",
            "description",
            "x-kho-node",
            "x-kho-frozen",
            "x-kho-children",
        ] {
            assert!(document.get(needed).is_some(), "{name} has no {needed}");
        }
        for (property, rules) in document["properties"].as_object().unwrap() {
            for needed in ["description", "x-kho-type", "x-kho-writer", "x-kho-reader"] {
                assert!(
                    rules.get(needed).is_some(),
                    "{name}: {property} has no {needed}"
                );
            }
            let schema = schema::find(&name).unwrap();
            assert!(schema.type_of(property).is_some(), "{name}: {property}");
        }
    }
}

/// A tree that names a late block.
fn late_reference() -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    let mut w = Writer::new(&mut bytes);
    w.begin_node("").unwrap();
    let block = PhysRange::new(PhysAddr::new(0x5000_1000), late::BLOCK_LEN).unwrap();
    late::LateReference { block, nonce: 7 }
        .write(&mut w)
        .unwrap();
    w.end_node().unwrap();
    let len = w.finish().unwrap();
    bytes.truncate(len);
    bytes
}

/// Valid values of every schema, as read from trees.
fn values() -> Vec<(&'static schema::Schema, Json)> {
    let mut out = Vec::new();
    for bytes in [common::traced(), common::kernel_part(), late_reference()] {
        let tree = Reader::new(&bytes).unwrap();
        for (_, node) in tree.nodes() {
            if let Some(schema) = schema::of(&node) {
                out.push((schema, Json::Object(view::properties(&node))));
            }
        }
    }
    out
}

#[test]
fn both_validators_say_the_same() {
    let strange = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1),
        json!(1.5),
        json!(4096),
        json!(4097),
        json!(u64::MAX),
        json!(""),
        json!("x"),
        json!("x".repeat(300)),
        json!("ä".repeat(64)),
        json!([]),
        json!([{"addr": 4096, "len": 4096}]),
        json!([{"addr": 4096, "len": 4096}, {"addr": 8192, "len": 4096}]),
        json!([{"addr": 1, "len": 4096}]),
        json!([{"addr": 4096, "len": 0}]),
        json!([{"addr": 0xffff_ffff_ffff_f000_u64, "len": 4096}]),
        json!([{"len": 4096}]),
        json!([7]),
        json!({"error": "x", "bytes": ""}),
        json!("files"),
        json!("raw"),
    ];
    let (mut accepted, mut refused) = (0, 0);
    let mut same = |schema: &schema::Schema, judge: &jsonschema::Validator, value: &Json| {
        let ours = schema::check(&schema.document, value);
        assert_eq!(
            ours.is_empty(),
            judge.is_valid(value),
            "{}: {value}: {ours:?}",
            schema.compatible
        );
        if ours.is_empty() {
            accepted += 1;
        } else {
            refused += 1;
        }
    };
    let mut seen = BTreeSet::new();
    for (schema, value) in values() {
        seen.insert(schema.compatible.as_str());
        let judge = jsonschema::draft202012::new(&schema.document).unwrap();
        assert!(
            schema::check(&schema.document, &value).is_empty(),
            "{value}"
        );
        same(schema, &judge, &value);
        for value in &strange {
            same(schema, &judge, value);
        }
        let names: Vec<String> = schema.document["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        for name in names {
            let mut less = value.clone();
            less.as_object_mut().unwrap().remove(&name);
            same(schema, &judge, &less);
            for other in &strange {
                let mut changed = value.clone();
                changed[&name] = other.clone();
                same(schema, &judge, &changed);
            }
        }
    }
    assert_eq!(
        seen.len(),
        schema::all().len(),
        "every schema has an example"
    );
    assert!(accepted > 100 && refused > 500, "{accepted} {refused}");
}

/// The contract's own list of properties.
fn contract() -> Vec<(&'static str, Vec<(&'static str, Type)>)> {
    use Type::{Bytes, Flag, Mem, Str, U32, U64};
    let part = [
        (abi::COMPATIBLE, Str),
        (abi::SIZE, U64),
        (abi::MEM, Mem),
        (abi::BLAKE3, Bytes),
    ];
    vec![
        (
            abi::HANDOVER_V1,
            vec![
                (abi::COMPATIBLE, Str),
                (abi::GENERATION, U64),
                (abi::HOP, U64),
                (abi::PREVIOUS_RELEASE, Str),
                (abi::MACHINE, Str),
                (abi::TIME, U64),
                (abi::CARRIER, Str),
                (abi::SCRATCH, Mem),
                (abi::MEM_CACHE, Mem),
                (abi::PAGE_SIZE_NAME, U32),
                (abi::CHECKSUM, U32),
            ],
        ),
        (abi::BLOBS_V1, vec![(abi::COMPATIBLE, Str)]),
        (
            abi::BLOB_V1,
            vec![
                (abi::COMPATIBLE, Str),
                (abi::LABEL, Str),
                (abi::KIND, Str),
                (abi::PATH, Bytes),
                (abi::SIZE, U64),
                (abi::MEM, Mem),
                (abi::BLAKE3, Bytes),
                (abi::TAKEN, U64),
                (abi::ARRIVED_HOP, U64),
                (abi::SKIP_SPECIAL, Flag),
                (abi::ONE_FILE_SYSTEM, Flag),
            ],
        ),
        (
            ftrace::FTRACE_V1,
            vec![
                (abi::COMPATIBLE, Str),
                (ftrace::LIMIT, U64),
                (ftrace::KEEP_HOPS, U32),
                (ftrace::CONFIGURED, Flag),
            ],
        ),
        (
            ftrace::FTRACE_HOP_V1,
            vec![
                (abi::COMPATIBLE, Str),
                (abi::HOP, U64),
                (ftrace::RELEASE, Str),
                (abi::TAKEN, U64),
            ],
        ),
        (
            ftrace::FTRACE_ARRAY_V1,
            vec![(abi::COMPATIBLE, Str), (ftrace::INSTANCE, Str)],
        ),
        (ftrace::FTRACE_META_V1, part.to_vec()),
        (ftrace::KMSG_V1, part.to_vec()),
        (
            ftrace::FTRACE_CPU_V1,
            [(ftrace::CPU, U32), (ftrace::SUB_BUFFER, U32)]
                .iter()
                .chain(&part)
                .copied()
                .collect(),
        ),
        (
            kernel_part::KERNEL_PART_V1,
            vec![
                (abi::COMPATIBLE, Str),
                (abi::SIZE, U64),
                (abi::GENERATION, U64),
                (abi::MEM, Mem),
            ],
        ),
        (
            late::KERNEL_PART_V2,
            vec![(abi::COMPATIBLE, Str), (late::NONCE, U64), (abi::MEM, Mem)],
        ),
        (
            kernel_part::KERNEL_V1,
            vec![
                (abi::COMPATIBLE, Str),
                (abi::GENERATION, U64),
                (kernel_part::RELEASE, Str),
                (abi::MEM, Mem),
                (abi::CHECKSUM, U32),
            ],
        ),
        (khofs::KHOFS_V1, vec![(abi::COMPATIBLE, Str)]),
        (
            khofs::INSTANCE_V1,
            vec![
                (abi::COMPATIBLE, Str),
                (khofs::INSTANCE, Str),
                (khofs::SIZE_LIMIT, U64),
                (khofs::INODE_LIMIT, U64),
                (khofs::INODES, U64),
                (abi::MEM, Mem),
            ],
        ),
        (
            khofs::TREE_V1,
            vec![
                (abi::COMPATIBLE, Str),
                (abi::SIZE, U64),
                (abi::CHECKSUM, U32),
                (abi::MEM, Mem),
            ],
        ),
    ]
}

#[test]
fn names_and_types_are_those_of_the_contract() {
    let contract = contract();
    assert_eq!(contract.len(), schema::all().len());
    for (compatible, properties) in contract {
        let schema = schema::find(compatible).unwrap();
        let listed: BTreeSet<&str> = schema.document["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(listed, properties.iter().map(|(name, _)| *name).collect());
        for (name, wanted) in properties {
            assert_eq!(schema.type_of(name), Some(wanted), "{compatible} {name}");
        }
    }
    // The schemas list every property that the writers write, so that no property is undocumented.
    for (schema, value) in values() {
        for name in value.as_object().unwrap().keys() {
            assert!(
                schema.type_of(name).is_some(),
                "{}: {name}",
                schema.compatible
            );
        }
    }
}

/// The tree without one property.
fn without(bytes: &[u8], path: &str, name: &str) -> Vec<u8> {
    fn copy(w: &mut Writer<'_>, node: kho::tree::Node<'_>, at: &str, path: &str, name: &str) {
        w.begin_node(node.name()).unwrap();
        for prop in node.props() {
            if !(at == path && prop.is(name)) {
                w.prop_bytes(prop.name(), prop.value().bytes()).unwrap();
            }
        }
        for child in node.children() {
            let at = format!("{}/{}", at.trim_end_matches('/'), child.name());
            copy(w, child, &at, path, name);
        }
        w.end_node().unwrap();
    }
    let mut buf = vec![0; bytes.len()];
    let mut w = Writer::new(&mut buf);
    copy(&mut w, Reader::new(bytes).unwrap().root(), "/", path, name);
    let len = w.finish().unwrap();
    buf.truncate(len);
    // A tree without a checksum cannot be sealed.
    let _ = seal(&mut buf);
    buf
}

#[test]
fn what_is_required_is_what_the_contract_misses() {
    let bytes = common::traced();
    for (path, compatible) in [
        ("/", abi::HANDOVER_V1),
        ("/blobs", abi::BLOBS_V1),
        ("/blobs/blob-0", abi::BLOB_V1),
        ("/ftrace", ftrace::FTRACE_V1),
        ("/ftrace/hop-3", ftrace::FTRACE_HOP_V1),
        ("/ftrace/hop-3/meta", ftrace::FTRACE_META_V1),
        ("/ftrace/hop-3/log", ftrace::KMSG_V1),
        ("/ftrace/hop-3/array-1", ftrace::FTRACE_ARRAY_V1),
        ("/ftrace/hop-3/array-1/cpu-1", ftrace::FTRACE_CPU_V1),
    ] {
        let document = &schema::find(compatible).unwrap().document;
        let required: BTreeSet<&str> = document["required"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Json::as_str)
            .collect();
        for name in document["properties"].as_object().unwrap().keys() {
            let broken = without(&bytes, path, name);
            let mut missed = false;
            Handover::check_all(&Reader::new(&broken).unwrap(), |problem| {
                missed |= problem.node == path
                    && matches!(problem.kind, ProblemKind::Missing { property } if property == name);
            })
            .unwrap();
            // A blob of files needs its path; the schema expresses that by a condition.
            let wanted = required.contains(name.as_str()) || name == abi::PATH;
            assert_eq!(missed, wanted, "{path} {name}");
        }
    }
}

/// The table of one schema for the book.
fn table(document: &Json) -> String {
    let mut out = String::from(
        "| property | type | unit | writes | reads | meaning |\n|---|---|---|---|---|---|\n",
    );
    let required: Vec<&str> = document["required"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Json::as_str)
        .collect();
    let text = |rules: &Json, key: &str| {
        rules
            .get(key)
            .and_then(Json::as_str)
            .unwrap_or("")
            .replace('|', "\\|")
    };
    // Required properties first, in the order of the schema, in which writers write them.
    let properties = document["properties"].as_object().unwrap();
    let optional = properties
        .keys()
        .map(String::as_str)
        .filter(|name| !required.contains(name));
    for name in required.iter().copied().chain(optional) {
        let rules = &properties[name];
        let mark = if required.contains(&name) {
            ""
        } else {
            " (optional)"
        };
        let mut meaning = text(rules, "description");
        if let Some(value) = rules.get("const").filter(|value| !value.is_boolean()) {
            let _ = write!(
                meaning,
                " Always `{}`.",
                value.to_string().trim_matches('"')
            );
        }
        let _ = writeln!(
            out,
            "| `{name}`{mark} | {} | {} | {} | {} | {meaning} |",
            text(rules, "x-kho-type"),
            text(rules, "x-kho-unit"),
            text(rules, "x-kho-writer"),
            text(rules, "x-kho-reader"),
        );
    }
    out.push_str("\nFrozen in this version:\n\n");
    for line in document["x-kho-frozen"].as_array().unwrap() {
        let _ = writeln!(out, "- {}", line.as_str().unwrap());
    }
    out
}

#[test]
fn the_book_has_these_tables() {
    let mut shown = BTreeSet::new();
    for entry in std::fs::read_dir(common::workspace().join("docs/src/abi")).unwrap() {
        let path = entry.unwrap().path();
        let page = std::fs::read_to_string(&path).unwrap();
        let mut out = String::new();
        let mut rest = page.as_str();
        while let Some((before, after)) = rest.split_once("<!-- schema ") {
            let (name, after) = after.split_once(" -->").unwrap();
            let (_, after) = after.split_once("<!-- end of schema -->").unwrap();
            let document = &schema::find(name).unwrap().document;
            let _ = write!(
                out,
                "{before}<!-- schema {name} -->\n\n{}\n<!-- end of schema -->",
                table(document)
            );
            shown.insert(name.to_owned());
            rest = after;
        }
        out.push_str(rest);
        common::golden(&path, &out);
    }
    let all: BTreeSet<String> = schema::all().iter().map(|s| s.compatible.clone()).collect();
    assert_eq!(shown, all);
}

#[test]
fn every_contract_says_what_the_others_say() {
    let abi = common::workspace().join("docs/src/abi");
    let pages = [
        "container.md",
        "handover.md",
        "blobs.md",
        "kernel.md",
        "setup_data.md",
        "chosen.md",
    ];
    for page in pages {
        let text = std::fs::read_to_string(abi.join(page)).unwrap();
        for needed in [
            "\n## A version bump\n",
            "\n## If a kexec fails\n",
            "```",
            "nknown",
        ] {
            assert!(text.contains(needed), "{page} has no {needed:?}");
        }
        assert!(
            text.contains("Frozen") || page == "chosen.md",
            "{page} does not say what is frozen"
        );
    }
}

/// The fragment on the page has the form of dt-schema's `chosen.yaml`.
#[test]
fn the_properties_of_chosen_are_a_schema_of_their_kind() {
    let page = common::workspace().join("docs/src/abi/chosen.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("```yaml\n").unwrap();
    let (yaml, _) = rest.split_once("```").unwrap();
    let document = to_json(&YamlLoader::load_from_str(yaml).unwrap()[0]);
    let properties = document["properties"].as_object().unwrap();
    assert_eq!(properties.len(), 3);
    for (name, rules) in properties {
        assert!(name.starts_with("kho,"), "{name}");
        assert_eq!(rules["$ref"], "types.yaml#/definitions/uint64-matrix");
        assert_eq!(rules["items"]["maxItems"], 2, "{name}: address and size");
        assert!(
            rules["description"]
                .as_str()
                .is_some_and(|text| text.len() > 40)
        );
        let mut local = rules.clone();
        // The type is in dt-schema's own file; the rest is JSON Schema.
        local.as_object_mut().unwrap().remove("$ref");
        jsonschema::meta::validate(&local).unwrap();
    }
    for (name, needs) in document["dependencies"].as_object().unwrap() {
        assert!(properties.contains_key(name));
        for needed in needs.as_array().unwrap() {
            assert!(properties.contains_key(needed.as_str().unwrap()));
        }
    }
}
