//! Random stories of drivers, root and kho.ko over many kernels: the decisions of the module, against a model of every
//! page.

use kho_sim::Template;
use kho_sim::module::{Story, Tally};
use stories::{on_every_machine, tell};

mod stories;

fn stories_of(template: &Template, first: u64) {
    tell::<Story, _>(template, first, (8, 500), |all: &Tally| {
        [
            ("hops", all.hops / 10),
            ("hops without the module", all.without_module),
            ("parts of a phase that was left", all.aborted),
            ("activations", all.activations / 10),
            ("activations that had to fail", all.failed_activations),
            ("nodes handed over again", all.carried / 4),
            ("pages lent", all.lent / 100),
            ("pages claimed", all.claimed),
            ("nodes claimed", all.nodes),
            ("nodes held", all.holds),
            ("pages released", all.released / 100),
            ("refusals", all.refused / 10),
            ("times loaded again", all.reloads),
            ("pages failed", all.failed),
            ("times without memory", all.no_memory),
        ]
    });
}

on_every_machine!(stories_of);
