//! Random stories of users, root and khofs over many kernels: the decisions of the file system, against a model of
//! every page.

use kho_sim::Template;
use kho_sim::khofs::{Story, Tally};
use stories::{on_every_machine, tell};

mod stories;

fn stories_of(template: &Template, first: u64) {
    tell::<Story, _>(template, first, (6, 400), |all: &Tally| {
        [
            ("hops", all.hops / 4),
            ("hops without khofs", all.without),
            ("images of a phase that was left", all.aborted * 6),
            ("activations", all.activations / 4),
            ("activations that had to fail", all.failed_activations),
            ("instances mounted after a hop", all.restored / 4),
            ("instances released", all.released),
            ("pages written", all.written / 1000),
            ("pages compared", all.compared / 10_000),
            ("folios", all.folios / 4),
            ("pages lost", all.lost),
            ("refusals", all.refused / 8),
            ("times without memory", all.no_memory),
            ("pages given back", all.given_back / 200),
        ]
    });
}

on_every_machine!(stories_of);
