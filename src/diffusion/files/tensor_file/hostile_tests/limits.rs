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
