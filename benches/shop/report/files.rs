//! Where the report goes: a folder of its own below cargo's target folder, and `BENCHMARKS.md` when asked to.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Report;
use super::machine::Machine;
use crate::plot;

const BEGIN: &str = "<!-- results: written by cargo bench -- --write -->\n";
const END: &str = "<!-- end of results -->\n";
const PLOT: &str = "throughput.svg";

/// The folder, and what was written into it.
pub struct Folder {
    path: PathBuf,
    pub markdown: String,
}

impl Folder {
    /// Writes the report as Markdown and as JSON, and the curves if there are any.
    pub fn write(report: &Report) -> Self {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in the target folder");
        let path = target.join("bench");
        let machine = Machine::describe();
        let markdown = format!("{}\n{}", machine.markdown(), report.markdown());
        let json = json!({ "machine": machine.to_json(), "results": report.to_json() });
        fs::create_dir_all(&path).expect("the target folder can be written to");
        fs::write(path.join("results.md"), &markdown).expect("results.md can be written");
        fs::write(path.join("results.json"), format!("{json:#}\n")).expect("results.json can be written");
        if let Some(curves) = &report.curves {
            plot::draw(curves, &path.join(PLOT)).expect("the curves can be drawn");
        }
        Self { path, markdown }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Replaces the results in `BENCHMARKS.md`, and the plot that it shows.
pub fn write_into_document(folder: &Folder) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = root.join("BENCHMARKS.md");
    let text = fs::read_to_string(&document).expect("BENCHMARKS.md is there");
    let (before, rest) = text.split_once(BEGIN).expect("it has the mark where the results begin");
    let (_, after) = rest.split_once(END).expect("it has the mark where the results end");
    let text = format!("{before}{BEGIN}\n{}\n{END}{after}", folder.markdown);
    fs::write(document, text).expect("BENCHMARKS.md can be written");
    fs::copy(folder.path.join(PLOT), root.join("docs").join(PLOT)).expect("the plot can be copied to docs");
}
