//! All producers at once: the handed-over data is valid in both kernels, in every form.

use crate::scenario::Scenario;

/// A producer and the shell commands that make it write a node.
struct Producer {
    /// Shell commands that make the producer write its node, in the first kernel.
    setup: &'static str,
    /// `compatible` of the producer's node.
    node: &'static str,
    /// Whether the node is in the kernel's part, which the module shows; otherwise it is in the loader's tree.
    of_module: bool,
}

/// To test another producer, add it here, and its module below.
const PRODUCERS: [Producer; 5] = [
    Producer {
        setup: "mkdir -p /srv/kept && kho-guest bytes 300000 --seed 1 >/srv/kept/file && kho keep /srv/kept",
        node: "kho-blob-v1",
        of_module: false,
    },
    Producer {
        setup: "echo sesame | kho keep --name token -",
        node: "kho-blob-v1",
        of_module: false,
    },
    Producer {
        setup: "kho keep --trace && echo hello >/sys/kernel/tracing/trace_marker",
        node: "kho-ftrace-v1",
        of_module: false,
    },
    Producer {
        setup: "echo hello >/sys/kernel/kho_ring/add",
        node: "kho-ring-v1",
        of_module: true,
    },
    Producer {
        setup: "mkdir -p /mnt/fs && mount -t khofs -o name=cache khofs /mnt/fs && kho-guest bytes 5000000 --seed 2 >/mnt/fs/file",
        node: "khofs-v1",
        of_module: true,
    },
];

/// Modules of this project that the producers need.
const MODULES: [&str; 3] = ["kho", "kho_ring", "khofs"];

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    let lines = |of_module: bool, tree: &str| -> String {
        PRODUCERS
            .iter()
            .filter(|producer| producer.of_module == of_module)
            .map(|producer| format!("grep -q '\"{}\"' {tree}\n", producer.node))
            .collect()
    };
    let setup: String = PRODUCERS
        .iter()
        .map(|producer| format!("{}\n", producer.setup))
        .collect();
    // Functions of the scripts: whether each producer's node is in the dump.
    let lines = format!(
        "drivers() {{\n{}}}\nloaders() {{\n{}}}\n",
        lines(true, "/tmp/drivers"),
        lines(false, "/tmp/loaders")
    );
    vec![
        Scenario::new(
            "producers",
            "kho validate, dump and diff on what every producer hands over, before and after the hop",
        )
        .kernels(&["6.1", "6.12"])
        .kho_modules(&MODULES)
        .first(&format!("{lines}{setup}{}", include_str!("producers/first.sh")))
        .each(&format!("{lines}{}", include_str!("producers/each.sh"))),
    ]
}
