//! Pickles that would take all memory, time or stack.

use super::*;

#[test]
fn pickles_that_ask_for_more_than_their_file_is_are_refused_at_once() {
    let millions = |opcode: &[u8]| [b"\x80\x02".as_slice(), &opcode.repeat(2_000_000)].concat();
    for (pickle, part) in [
        // A billion laughs: each list holds the one before ten times.
        (
            [
                b"\x80\x02]q\x00".as_slice(),
                &b"](h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00eq\x00".repeat(5000),
                b".",
            ]
            .concat(),
            "without end",
        ),
        (millions(b"("), "makes more values"),
        (millions(b"]"), "makes more values"),
        (millions(b"N"), "makes more values"),
        (millions(b"]q\x00"), "makes more values"),
        (millions(b"\x94"), "a stack that is not there"),
        (millions(b"}\x94"), "makes more values"),
        (opcodes![b"X\xff\xff\xff\xff"], "no end"),
        (opcodes![b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff"], "no end"),
        (opcodes![b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f"], "no end"),
        (opcodes![b"\x96\x00\x00\x00\x00\x00\x01\x00\x00"], "no end"),
        (opcodes![b"\x8b\xff\xff\xff\xff"], "no end"),
        (opcodes![b"c", b"a".repeat(5000).as_slice(), b"\n"], "a name that is too long"),
        (opcodes![b"c\xff\xfe\nx\n."], "not UTF-8"),
        (opcodes![b"h\x07."], "a memo that is not there"),
        (opcodes![b"j\xff\xff\xff\xff."], "a memo that is not there"),
        (opcodes![b"t."], "a mark that is not there"),
        (opcodes![b"0."], "a stack that is not there"),
        (opcodes![b"N(0."], "a stack that is not there"),
        (opcodes![b"R."], "a stack that is not there"),
        (opcodes![b"NN\x86NR."], "a call that is not there"),
        (opcodes![b"Na."], "a stack that is not there"),
        (opcodes![b")Na."], "a list that is not there"),
        (opcodes![b"}(Nu."], "a dict that is not there"),
        (opcodes![b")Nb."], "a state that is not there"),
        (opcodes![b"KK\x93."], "a stack that is not there"),
        (opcodes![b"NN\x93."], "a name that is not there"),
        (opcodes![b"\x80\x63."], "the unknown protocol 99"),
        (opcodes![b"ctorch\nFloatStorage\n)R."], "it calls a storage"),
        (opcodes![b"ctorch\nfloat16\n)R."], "it calls a type of values"),
        (
            opcodes![
                b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nN)NtR."
            ],
            "it calls torch's function",
        ),
        (opcodes![b"ctorch._utils\n_rebuild_tensor_v2\n)R."], "makes a tensor in a way"),
        (
            opcodes![b"ctorch._utils\n_rebuild_parameter\nN\x85R."],
            "it calls torch's function for a parameter",
        ),
        (opcodes![b"N."], "no tensors"),
        (opcodes![b"}."], "no tensors"),
        // A dict and a list that hold themselves.
        (opcodes![b"}q\x00", "a", b"h\x00s", "b", b"h\x00s", "c", b"h\x00s."], "no tensors"),
        (opcodes![b"}q\x00", "state_dict", b"h\x00s."], "no tensors"),
        (opcodes![b"]q\x00h\x00a."], "no tensors"),
        (b"".to_vec(), "no end"),
    ] {
        let since = std::time::Instant::now();
        let sentence = refused(&holding(&pickle));
        assert!(sentence.contains(part), "{part}: {sentence}");
        assert!(since.elapsed().as_secs() < 10, "{part} took {:?}", since.elapsed());
    }
}

#[test]
fn values_that_lie_a_hundred_thousand_deep_cost_no_stack() {
    let deep = [b"\x80\x02".as_slice(), &b"]".repeat(60_000), &b"a".repeat(59_999), b"."].concat();
    assert!(refused(&holding(&deep)).contains("no tensors"));
    let tuples = [b"\x80\x02)".as_slice(), &b"\x85".repeat(60_000), b"."].concat();
    assert!(refused(&holding(&tuples)).contains("no tensors"));
}

/// The opcodes that make a tensor of four values, as memo 0.
fn tensor_in_memo() -> Vec<u8> {
    opcodes![
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        "storage",
        b"ctorch\nFloatStorage\n",
        "0",
        "cpu",
        b"K\x04tQK\x00K\x04\x85K\x01\x85\x89}tRq\x000"
    ]
}

#[test]
fn calls_that_copy_what_was_made_once_are_counted() {
    // A list of ten thousand times the same pair, made into dicts.
    let dicts = [
        b"\x80\x02ccollections\nOrderedDict\nq\x00](NN\x86q\x01".as_slice(),
        &b"h\x01".repeat(10_000),
        b"e\x85q\x02",
        &b"h\x00h\x02R0".repeat(50_000),
        b"N.",
    ]
    .concat();
    // Tensors of 32 sizes.
    let (begin, ones) = (
        opcodes![
            b"ctorch._utils\n_rebuild_tensor_v2\nq\x00((",
            "storage",
            b"ctorch\nFloatStorage\n",
            "0",
            "cpu",
            b"K\x04tQK\x00"
        ],
        [b"(".as_slice(), &b"K\x01".repeat(32), b"t"].concat(),
    );
    let tensors = [&begin[..], &ones, &ones, b"\x89}tq\x01", &b"h\x00h\x01R0".repeat(10_000), b"N."].concat();
    for pickle in [dicts, tensors] {
        let sentence = refused(&holding(&pickle));
        assert!(sentence.contains("makes more values"), "{sentence}");
    }
}

#[test]
fn names_that_multiply_are_refused() {
    let nested = |outer: usize, keys: usize| {
        let mut pickle = opcodes![tensor_in_memo().as_slice(), b"}", "K".repeat(outer).as_str(), b"}("];
        for key in 0..keys {
            text(&mut pickle, &format!("k{key}"));
            pickle.extend(b"h\x00");
        }
        pickle.extend(b"us.");
        holding(&pickle)
    };
    let names = opened(&nested(900, 100)).unwrap().tensor_names();
    assert!(names.len() == 100 && names.iter().all(|name| name.len() > 900));
    for (outer, keys, part) in [(900, 5000, "longer than the file"), (998, 1000, "more than 1000 bytes")] {
        let sentence = refused(&nested(outer, keys));
        assert!(sentence.contains(part), "{sentence}");
    }
    let long = opcodes![tensor_in_memo().as_slice(), b"}", "K".repeat(1001).as_str(), b"h\x00s."];
    assert!(refused(&holding(&long)).contains("more than 1000 bytes"));
    // What lies under a long key, as trainers have it beside their weights, is passed over.
    assert!(refused(&nested(1 << 20, 60_000)).contains("no tensors"));
}

#[test]
fn a_long_text_that_is_used_again_and_again_costs_no_time() {
    let since = std::time::Instant::now();
    let mut keys = opcodes![("K".repeat(8 << 20)).as_str(), b"q\x000}("];
    keys.extend(b"h\x00N".repeat(60_000));
    keys.extend(b"u.");
    assert!(refused(&holding(&keys)).contains("no tensors"));
    let module = format!("omegaconf.{}", "x".repeat(8 << 20));
    let mut globals = opcodes![module.as_str(), b"q\x000"];
    globals.extend([b"h\x00".as_slice(), b"\x8c\x01x\x930"].concat().repeat(1000));
    assert!(refused(&holding(&globals)).contains("a name that is too long"));
    assert!(since.elapsed().as_secs() < 5, "{:?}", since.elapsed());
}

#[test]
fn a_few_values_of_a_large_tensor_do_not_take_its_memory() {
    let of = |step: i32| {
        let pickle = opcodes![
            b"}",
            "t",
            b"ctorch._utils\n_rebuild_tensor_v2\n((",
            "storage",
            b"ctorch\nFloatStorage\n",
            "0",
            "cpu",
            b"J\x21\xa1\x07\x00tQK\x00K\x02\x85",
            [b"J".as_slice(), &step.to_le_bytes(), b"\x85\x89}tRs."].concat().as_slice()
        ];
        opened(&zipped(&[("a/data.pkl", &pickle), ("a/data/0", &vec![0; 4 * 500_001])])).unwrap()
    };
    assert_eq!(of(200_000).values("t").unwrap(), [0.0, 0.0]);
    let error = of(500_000).values("t").unwrap_err().to_string();
    assert!(error.contains("save it with torch's contiguous()"), "{error}");
}
