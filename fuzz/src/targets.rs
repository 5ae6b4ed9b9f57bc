//! Lists the targets, one per line: name, length of the longest input, description. With a folder as its argument it
//! writes each target's seeds below that folder.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let dir = std::env::args_os().nth(1);
    for target in kho_fuzz::TARGETS {
        println!("{}\t{}\t{}", target.name, target.max_len, target.about);
        let Some(dir) = &dir else { continue };
        let dir = Path::new(dir).join(target.name);
        let written = std::fs::create_dir_all(&dir).and_then(|()| {
            (0..).zip((target.seeds)()).try_for_each(|(number, seed)| {
                std::fs::write(dir.join(format!("seed-{number}")), seed)
            })
        });
        if let Err(error) = written {
            eprintln!("{}: {error}", dir.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
