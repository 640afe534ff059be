//! Pickles that would run code, or read where they should not.

use super::*;

#[test]
fn a_pickle_that_asks_for_code_is_refused_by_that_name() {
    for (pickle, name) in [
        (opcodes![b"cos\nsystem\n", "id", b"\x85R."], "os.system"),
        (opcodes![b"cposix\nsystem\n", "id", b"\x85R."], "posix.system"),
        (opcodes![b"cnt\nsystem\n", "id", b"\x85R."], "nt.system"),
        (opcodes![b"csubprocess\ncheck_output\n", "id", b"\x85R."], "subprocess.check_output"),
        (opcodes![b"cbuiltins\neval\n", "1", b"\x85R."], "builtins.eval"),
        (opcodes![b"c__builtin__\nexec\n", "1", b"\x85R."], "__builtin__.exec"),
        (
            opcodes![
                b"cbuiltins\ngetattr\n",
                b"cbuiltins\n__import__\n",
                "os",
                b"\x85R",
                "system",
                b"\x86R."
            ],
            "builtins.getattr",
        ),
        (opcodes![b"cbuiltins\ngetattr\n)R."], "builtins.getattr"),
        (opcodes![b"crunpy\n_run_code\n)R."], "runpy._run_code"),
        (opcodes![b"csys\nmodules\n."], "sys.modules"),
        (opcodes![b"cimportlib\nimport_module\n", "os", b"\x85R."], "importlib.import_module"),
        (opcodes![b"coperator\nattrgetter\n", "system", b"\x85R."], "operator.attrgetter"),
        (opcodes![b"cfunctools\npartial\n)R."], "functools.partial"),
        (opcodes![b"cpty\nspawn\n", "sh", b"\x85R."], "pty.spawn"),
        (opcodes![b"cwebbrowser\nopen\n", "http://x", b"\x85R."], "webbrowser.open"),
        (opcodes![b"curllib.request\nurlopen\n)R."], "urllib.request.urlopen"),
        (opcodes![b"c_pickle\nloads\n)R."], "_pickle.loads"),
        // Texts in the memo, and the name from the stack.
        (
            opcodes![b"\x80\x04", "os", b"\x94", "system", b"\x940h\x00h\x01\x93", "id", b"\x85R."],
            "os.system",
        ),
        (opcodes![b"\x80\x04\x8c\x05posix\x8c\x06system\x93."], "posix.system"),
        // The opcodes of old Pythons.
        (opcodes![b"(S'id'\nios\nsystem\n."], "0x53"),
        (opcodes![b"(", "id", b"ios\nsystem\n."], "os.system"),
        (opcodes![b"(cos\nsystem\n", "id", b"o."], "os.system"),
        (opcodes![b"(ccollections\nOrderedDict\no."], "0x6f"),
        (opcodes![b"(icollections\nOrderedDict\n."], "INST"),
        // Behind what is harmless.
        (
            opcodes![b"}", "state_dict", b"}s}", "x", b"cnumpy\ndtype\n)Rcos\nsystem\n", "id", b"\x85R."],
            "os.system",
        ),
        // In the class of a thing, its state, and its items.
        (opcodes![b"cos\n_wrap_close\n)\x81}b."], "os._wrap_close"),
        (
            opcodes![b"cargparse\nNamespace\n)\x81}", "__setstate__", b"cos\nsystem\nsb", "id", b"b."],
            "os.system",
        ),
        // In modules of torch and numpy that read pickles or run text.
        (opcodes![b"ctorch.storage\n_load_from_bytes\nC\x01x\x85R."], "torch.storage._load_from_bytes"),
        (opcodes![b"ctorch\nload\n", "x", b"\x85R."], "torch.load"),
        (opcodes![b"ctorch.hub\nload\n)R."], "torch.hub.load"),
        (
            opcodes![b"cnumpy.testing._private.utils\nrunstring\n)R."],
            "numpy.testing._private.utils.runstring",
        ),
        (opcodes![b"ctorch._utils\n_rebuild_sparse_tensor\n)R."], "torch._utils._rebuild_sparse_tensor"),
        // Through a module that is harmless to what it imports.
        (opcodes![b"\x80\x04\x8c\x05numpy\x8c\x0bsys.modules\x93."], "numpy.sys.modules"),
        (opcodes![b"cpytorch_lightning\nos.system\n."], "pytorch_lightning.os.system"),
        (opcodes![b"cldm.models.diffusion\nDDPM\n)\x81."], "ldm.models.diffusion.DDPM"),
        // Made by an extension's number.
        (opcodes![b"\x82\x01."], "0x82"),
        (opcodes![b"Ptext\n."], "0x50"),
        (opcodes![b"\x97."], "0x97"),
    ] {
        for file in [holding(&pickle), [OLD_START, &pickle, b"\x80\x02]."].concat()] {
            let sentence = refused(&file);
            assert!(sentence.contains(name), "{name}: {sentence}");
        }
    }
}

#[test]
fn things_of_harmless_classes_are_made_of_nothing_and_do_nothing() {
    let torch = [TorchTensor { name: "w", storage: "Float", shape: &[2, 2], bytes: &[0; 16] }];
    for file in [save(&torch, Around::Checkpoint), save_old(&torch, Around::Checkpoint)] {
        let file = opened(&file).unwrap();
        assert_eq!(file.tensor_names(), ["w"]);
        assert_eq!(file.table.not_read, ["global_step", "callbacks"]);
    }
    // A tensor that such a thing would make is none.
    let pickle = opcodes![b"}", "w", b"cnumpy.core.multiarray\n_reconstruct\n)Rs."];
    assert!(refused(&holding(&pickle)).contains("it holds no tensors"));
    let pickle = opcodes![b"cargparse\nNamespace\n)\x81."];
    assert!(refused(&holding(&pickle)).contains("it holds an object of argparse.Namespace"));
}

#[test]
fn tensors_that_reach_beyond_their_storage_or_the_file_are_refused() {
    let (zero, four, one): (&[u8], &[u8], &[u8]) = (b"K\x00", b"K\x04\x85", b"K\x01\x85");
    assert_eq!(opened(&holding(&tensor(zero, four, one))).unwrap().values("t").unwrap(), [0.0; 4]);
    let huge: &[u8] = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    let huge_sizes = [b"(", huge, huge, huge, b"t"].concat();
    for (offset, shape, strides, part) in [
        (b"K\x01".as_slice(), four, one, "beyond its storage"),
        (huge, four, one, "beyond its storage"),
        (b"J\xff\xff\xff\xff", four, one, "the offset -1"),
        (zero, b"K\x05\x85", one, "beyond its storage"),
        (zero, four, b"K\x02\x85", "beyond its storage"),
        (zero, four, b"J\xff\xff\xff\xff\x85", "the size or stride -1"),
        (zero, b"J\xff\xff\xff\xff\x85", one, "the size or stride -1"),
        (zero, &huge_sizes, &huge_sizes, "the shape"),
        (zero, four, b")", "the shape [4] and the strides []"),
        (zero, b"K\x04K\x04\x86", b"K\x00K\x01\x86", "a place of its own"),
        (zero, b"K\x02K\x02\x86", b"K\x00K\x00\x86", "a place of its own"),
        (zero, &[b"(".as_slice(), &b"K\x01".repeat(40), b"t"].concat(), one, "not a few numbers"),
        (zero, b"K\x04", one, "not a few numbers"),
        (zero, b"N\x85", one, "not a few numbers"),
        (zero, b"}", one, "not a few numbers"),
    ] {
        let sentence = refused(&holding(&tensor(offset, shape, strides)));
        assert!(sentence.contains(part), "{part}: {sentence}");
    }
    let storage = |parts: &[u8], entries: &[(&str, &[u8])]| {
        let pickle = opcodes![
            b"}",
            "t",
            b"ctorch._utils\n_rebuild_tensor_v2\n(",
            parts,
            b"QK\x00",
            four,
            one,
            b"\x89}tRs."
        ];
        refused(&zipped(&[&[("a/data.pkl", pickle.as_slice())], entries].concat()))
    };
    let named = |key: &str, count: &[u8]| {
        opcodes![b"(", "storage", b"ctorch\nFloatStorage\n", key, "cpu", count, b"t"][2..].to_vec()
    };
    let data: &[(&str, &[u8])] =
        &[("a/data/0", &[0; 15]), ("a/data/../../etc/passwd", &[0; 16]), ("etc/passwd", &[0; 16])];
    for (parts, part) in [
        (named("0", b"K\x04"), "its storage 0 has 15 bytes, not 16"),
        (named("1", b"K\x04"), "it has no storage 1"),
        (named("../../../etc/passwd", b"K\x04"), "it has no storage ../../../etc/passwd"),
        (named("/etc/passwd", b"K\x04"), "it has no storage /etc/passwd"),
        (named("0", huge), "has more bytes than a file can have"),
        (named("0", b"J\xff\xff\xff\xff"), "names its storages in a way"),
        (b"N".to_vec(), "a storage that is not there"),
        (b")".to_vec(), "names its storages in a way"),
        (
            opcodes![b"(", "storage", "FloatStorage", "0", "cpu", b"K\x04t"][2..].to_vec(),
            "names its storages in a way",
        ),
        (
            opcodes![b"(", "file", b"ctorch\nFloatStorage\n", "0", "cpu", b"K\x04t"][2..].to_vec(),
            "names its storages in a way",
        ),
    ] {
        let sentence = storage(&parts, data);
        assert!(sentence.contains(part), "{part}: {sentence}");
    }
}
