//! Every committed input of every target still keeps its promises.
use std::fs;
use std::path::Path;

#[test]
fn committed_inputs_keep_the_promises_of_their_targets() {
    let corpus_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, body) in fuzz::TARGETS {
        let mut inputs: Vec<_> = fs::read_dir(corpus_dir.join(name))
            .unwrap_or_else(|error| panic!("corpus/{name}: {error}"))
            .map(|entry| entry.unwrap().path())
            .collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "corpus/{name} is empty");
        for input in inputs {
            println!("{}", input.display()); // shown when the body panics
            body(&fs::read(&input).unwrap());
        }
    }
}
