"""The networks in torch, with random parameters. The graphs are compared with them."""
import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel

torch.manual_seed(0)


def randomised(module):
    """Randomises every parameter, even those that start as ones or zeros, so that no mistake stays hidden."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.ndim > 1:
                p.normal_(std=0.02 if "embedding" in name else float(np.prod(p.shape[1:])) ** -0.5)
            else:
                p.normal_(mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.1)
    return module.eval().requires_grad_(False)


def state(module):
    """Checkpoint name -> array."""
    # Newer releases of transformers leave out a level of names that most checkpoints have.
    level = {CLIPTextModel: ("", "text_model."), StableDiffusionSafetyChecker: ("vision_model.", "vision_model.")}
    before, added = level.get(type(module), ("-", ""))
    names = {name: added + name if name.startswith(before) else name for name in module.state_dict()}
    return {names[name]: p.numpy() for name, p in module.state_dict().items()}


def text_encoder(config):
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings",
            "hidden_act", "layer_norm_eps")
    settings = {key: config[key] for key in keys if key in config}
    return randomised(CLIPTextModel(CLIPTextConfig(**settings, bos_token_id=0, eos_token_id=1, pad_token_id=1)))


def safety_checker(config):
    vision = {key: value for key, value in config["vision_config"].items() if key != "model_type"}
    return randomised(StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=config["projection_dim"])))


def unet(config):
    settings = {key: value for key, value in config.items() if key != "is_controlled"}  # only our graph has it
    return randomised(UNet2DConditionModel.from_config(settings))


def controlnet(config):
    """The ControlNet of a UNet with this config."""
    return randomised(ControlNetModel.from_unet(UNet2DConditionModel.from_config(config)))


def residuals(module):
    """The outputs of a ControlNet's graph: what it gives for each skip connection, then for the middle."""
    def outputs(sample, timestep, context, hint):
        down, mid = module(sample, timestep, context, hint, return_dict=False)
        return [*down, mid]
    return outputs


def whole(module):
    """The outputs of a UNet's graph: what it predicts, and what comes into the last layer of its way up."""
    def outputs(sample, timestep, context, *guidance):
        seen = []
        hook = module.up_blocks[-1].resnets[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        predicted = module(sample, timestep, context, timestep_cond=next(iter(guidance), None)).sample
        hook.remove()
        return [predicted, seen[0][:, :module.config.block_out_channels[0]]]
    return outputs


def shallow_unet(config):
    """What a shallow call runs of a UNet: without the rest, which would take gigabytes."""
    with torch.device("meta"):
        module = UNet2DConditionModel.from_config(config)
    module.down_blocks, module.mid_block = torch.nn.ModuleList(), None
    for part in ("resnets", "attentions"):
        for i, block in enumerate(module.up_blocks):
            kept = block if i + 1 == len(module.up_blocks) else torch.nn.Module()
            module.up_blocks[i] = kept
            layers = getattr(kept, part, [])
            for j in range(len(layers) - 1):
                layers[j] = torch.nn.Module()
    return randomised(module.to_empty(device="cpu"))


def shallow(module):
    """The output of a UNet whose last layer of the way up is given what comes into it."""
    def outputs(sample, timestep, context, *further):
        guidance, deep = next(iter(further[:-1]), None), further[-1]
        time = module.time_embedding(module.get_time_embed(sample, timestep), guidance)
        layers = module.up_blocks[-1]
        x = layers.resnets[-1](torch.cat([deep, module.conv_in(sample)], 1), time)
        if getattr(layers, "attentions", None):
            x = layers.attentions[-1](x, encoder_hidden_states=context).sample
        return [module.conv_out(module.conv_act(module.conv_norm_out(x)))]
    return outputs


def controlled(module):
    """The output of a UNet with what ControlNets give: for each skip connection, then for the middle."""
    def outputs(sample, timestep, context, *residuals):
        return [module(sample, timestep, context, down_block_additional_residuals=residuals[:-1],
                       mid_block_additional_residual=residuals[-1]).sample]
    return outputs


def vae(config):
    return randomised(AutoencoderKL.from_config(config))


def vae_tiny(config):
    return randomised(AutoencoderTiny.from_config(config))


class TextEncoder:
    """The outputs of the text encoder's graph, computed with torch. Extra rows are appended to the vocabulary, as in diffusers."""

    def __init__(self, module, config):
        self.module, self.config, self.table = module, config, module.embeddings.token_embedding.weight.data

    def __call__(self, input_ids, extra_embeddings):
        self.module.embeddings.token_embedding.weight.data = torch.cat([self.table, extra_embeddings])
        out = self.module(input_ids, output_hidden_states=True)
        self.module.embeddings.token_embedding.weight.data = self.table
        hidden, norm = out.hidden_states, self.module.final_layer_norm
        return [out.last_hidden_state] + [norm(hidden[-skip]) for skip in range(2, self.config["num_hidden_layers"] + 1)]


def safety_scores(module):
    """The outputs of the safety checker's graph: the lines of its forward() before the rounding."""
    def scores(clip_input):
        embedding = module.visual_projection(module.vision_model(clip_input)[1])
        parts = [(module.special_care_embeds, module.special_care_embeds_weights), (module.concept_embeds, module.concept_embeds_weights)]
        return [torch.cat([cosine_distance(embedding, embeds) - thresholds for embeds, thresholds in parts], 1)]
    return scores
