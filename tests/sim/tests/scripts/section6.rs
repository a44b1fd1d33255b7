//! Section 6 of `docs/protocol.md`: every row names the tests that show it, and they are there.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the failure matrix: what fails, and the cell that says what shows it.
fn rows() -> Vec<(String, String)> {
    let text = read(&root().join("docs/protocol.md"));
    let section = text.split("\n## ").find(|section| section.starts_with("6. ")).expect("there is a section 6");
    let table = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows = table.map(cells).map(|cells| {
        assert_eq!(cells.len(), 4, "a row of section 6 has four cells: {cells:?}");
        (cells[0].clone(), cells[3].clone())
    });
    rows.collect()
}

/// The names in a cell: `kind:file::test`, or `lab:scenario`.
fn names(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn exists(name: &str) -> Result<(), String> {
    let (kind, rest) = name.split_once(':').ok_or("it is to be sim:, system:, server: or lab:")?;
    if kind == "lab" {
        let scenarios = read(&root().join("tests/lab/src/scenarios.rs"));
        let found = scenarios.contains(&format!("name: \"{rest}\""));
        return found.then_some(()).ok_or_else(|| "there is no such scenario".to_owned());
    }
    let folder = match kind {
        "sim" => "tests/sim/tests/scripts",
        "system" => "tests/system/tests",
        "server" => "server/tests",
        _ => return Err("it is to be sim:, system:, server: or lab:".to_owned()),
    };
    let (file, test) = rest.split_once("::").ok_or("it is to be file::test")?;
    let source = read(&root().join(folder).join(format!("{file}.rs")));
    let found = source.split("#[test]").skip(1).any(|after| after.trim_start().starts_with(&format!("fn {test}(")));
    found.then_some(()).ok_or_else(|| format!("there is no such test in {folder}/{file}.rs"))
}

#[test]
fn every_row_of_the_failure_matrix_names_tests_that_exist() {
    let rows = rows();
    assert!(rows.len() >= 20, "the table has {} rows", rows.len());
    for (what, cell) in rows {
        let names = names(&cell);
        assert!(names.iter().any(|name| name.starts_with("sim:")), "no test in the simulator: {what}");
        for name in names {
            if let Err(why) = exists(name) {
                panic!("{what}: {name}: {why}");
            }
        }
    }
}
