"""Small checks of the folder: casts fold at load, the `tokenizers` library reads vocab+merges like transformers does, diffusers reads the configs."""
import os, tempfile, json, collections, onnx, onnxruntime as ort
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, Regex
from transformers import CLIPTokenizer
R = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
for n in ("text_encoder", "unet", "vae_decoder", "vae_encoder"):
    o = ort.SessionOptions(); p = tempfile.mktemp(suffix=".onnx"); o.optimized_model_filepath = p
    o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    s = ort.InferenceSession(f"{R}/{n}/model.onnx", o, providers=["CPUExecutionProvider"])
    before, after = (collections.Counter(x.op_type for x in onnx.load(q).graph.node) for q in (f"{R}/{n}/model.onnx", p))
    m = onnx.load(f"{R}/{n}/model.onnx")
    print(n, "opset", m.opset_import[0].version, "ir", m.ir_version, "Cast nodes", before["Cast"], "->", after["Cast"], "after ORT folding;",
          [(i.name, i.type, i.shape) for i in s.get_inputs()], "->", [(i.name, i.type, i.shape) for i in s.get_outputs()]); os.remove(p)
tr = CLIPTokenizer.from_pretrained(f"{R}/tokenizer")
tk = Tokenizer(models.BPE.from_file(f"{R}/tokenizer/vocab.json", f"{R}/tokenizer/merges.txt", continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token="<|endoftext|>", fuse_unk=False))
tk.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
tk.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
b, e = tr.bos_token_id, tr.eos_token_id
tk.post_processor = processors.RobertaProcessing(("<|endoftext|>", e), ("<|startoftext|>", b), trim_offsets=False, add_prefix_space=False)
for t in ("a red heart on a blue background", "", "A RED  HEART!!!", "Zürich 日本 😀 dog's 42", "ein rotes Herz, naïve café"):
    assert tr(t).input_ids == tk.encode(t).ids, (t, tr(t).input_ids, tk.encode(t).ids)
print("tokenizer ok, bos", b, "eos/pad/unk", e, "vocab", len(tr))
