//! Lays out the pictures of a request: what is drawn of them, at which size, and what of them stays in the result.
//!
//! With `inpaint_area: masked` or `outpaint`, the result is the client's picture (with more pixels around it), and a region
//! of it is drawn. Otherwise the whole picture is brought to the requested size. A second pass lays out the same at its
//! own size, from the client's picture, and starts from it only where the mask keeps it.

use crate::diffusion::image::{ImageError, Mask, Overlay, Region, RgbImage, decode_image};
use crate::domain::{GenerationInput, ImageSize, ImageSource, InpaintArea, InpaintFill, ResizeMode, Target};

/// The pictures of a request, ready to be encoded.
#[derive(Default)]
pub(super) struct Layout {
    /// The picture to start from. It has the size of the drawing, unless its latents are stretched.
    pub image: Option<RgbImage>,
    /// At the size of the drawing.
    pub mask: Option<Mask>,
    /// What is laid over the finished pictures.
    pub overlay: Option<Overlay>,
    /// None: the whole result is drawn.
    pub window: Option<Window>,
    /// A sentence for the client.
    pub warning: Option<String>,
}

/// The region of the result that is drawn.
#[derive(Clone, Copy)]
pub(super) struct Window {
    /// The size of the result.
    pub whole: ImageSize,
    pub region: Region,
}

/// How large the drawing is.
#[derive(Clone, Copy)]
pub(super) struct Drawing {
    /// The requested size.
    pub asked: ImageSize,
    /// The size at which the first pass draws.
    pub first: ImageSize,
    /// The size of a second pass, if it is one.
    pub second: Option<Target>,
    /// The pixels along a side of a latent.
    pub latent: u32,
    /// Whether latents may be stretched.
    pub stretches: bool,
}

impl Drawing {
    pub fn size(self) -> ImageSize {
        self.second.map_or(self.first, |target| target.kept)
    }

    /// The size of the result, if that is not the picture's own.
    fn result(self) -> ImageSize {
        self.second.map_or(self.asked, |target| target.kept)
    }

    /// The picture, or its mask, at one of these two sizes.
    fn fit(self, picture: &RgbImage, size: ImageSize, mode: ResizeMode) -> Result<RgbImage, ImageError> {
        let size = self.second.map_or(size, |target| target.covers);
        let fitted = match mode {
            ResizeMode::Stretch | ResizeMode::Latent => picture.resize(size)?,
            _ if size == self.asked => picture.fit(size, mode)?,
            // Cut or framed in the shape of the result, which the drawing may have only nearly.
            _ => picture.fit(multiple(self.asked, size), mode)?.resize(size)?,
        };
        Ok(match self.second {
            Some(target) if target.kept != target.covers => self.kept(target).cut(&fitted),
            _ => fitted,
        })
    }

    /// The part of an enlarged picture that is kept, where the latents are cut as well.
    fn kept(self, Target { covers, kept }: Target) -> Region {
        let before = |covers: u32, kept: u32| (covers - kept) / self.latent / 2 * self.latent;
        let (left, top) = (before(covers.width, kept.width), before(covers.height, kept.height));
        Region { left, top, width: kept.width, height: kept.height }
    }
}

/// The smallest multiple of `size` that covers `covered`.
fn multiple(size: ImageSize, covered: ImageSize) -> ImageSize {
    let times = covered.width.div_ceil(size.width.max(1)).max(covered.height.div_ceil(size.height.max(1)));
    ImageSize { width: size.width * times, height: size.height * times }
}

impl Layout {
    /// Decodes the pictures, whose bytes must have been fetched.
    pub fn new(input: &GenerationInput, drawing: Drawing) -> Result<Self, ImageError> {
        let laid_out = Self::of_pictures(input, drawing)?;
        // Without a mask, a second pass needs no picture: it starts from the enlarged drawing.
        let is_kept = drawing.second.is_none() || laid_out.mask.is_some();
        Ok(Self { image: laid_out.image.filter(|_| is_kept), ..laid_out })
    }

    fn of_pictures(input: &GenerationInput, drawing: Drawing) -> Result<Self, ImageError> {
        if drawing.second.is_some() && !input.is_masked() {
            return Ok(Self::default());
        }
        let image = input.init_image.as_ref().map(pixels).transpose()?;
        let mask = input.mask.as_ref().map(pixels).transpose()?;
        let keeps_picture = input.inpainting.keeps_picture();
        match (image, mask) {
            (Some(image), mask) if keeps_picture && input.is_masked() => {
                Self::within(input, image, mask.as_ref(), drawing)
            }
            (Some(image), mask) => Self::whole(input, &image, mask.as_ref(), drawing),
            (None, Some(mask)) => {
                let mask = Mask::new(&mask, drawing.size(), input.mask_invert)?;
                Ok(Self { mask: Some(mask), ..Self::default() })
            }
            (None, None) => Ok(Self::default()),
        }
    }

    /// Everything is drawn, at the requested size.
    fn whole(
        input: &GenerationInput,
        image: &RgbImage,
        mask: Option<&RgbImage>,
        drawing: Drawing,
    ) -> Result<Self, ImageError> {
        let (drawn_at, result) = (drawing.size(), drawing.result());
        let mode = input.inpainting.resize_mode;
        // The mask lies over the picture, whatever its own size is. A picture that is stretched needs no step between.
        let mask = match mask {
            Some(mask) if mode != ResizeMode::Stretch && mask.size() != image.size() => {
                Some(&mask.resize(image.size())?)
            }
            mask => mask,
        };
        let fit = |picture: &RgbImage, size: ImageSize| drawing.fit(picture, size, mode);
        let mask_at =
            |size| mask.map(|mask| Mask::new(&fit(mask, size)?, size, input.mask_invert)).transpose();
        let overlay = match (mask_at(result)?, input.mask_blur) {
            (Some(mask), Some(blur)) => Some(Overlay::new(fit(image, result)?, &mask, blur)),
            _ => None,
        };
        let encoded_at = match mode {
            ResizeMode::Latent if drawing.stretches && drawing.second.is_none() => {
                image.size().fitted(drawing.latent)
            }
            _ => drawn_at,
        };
        let mut image =
            if encoded_at == drawn_at { fit(image, drawn_at)? } else { image.resize(encoded_at)? };
        if input.inpainting.fill == InpaintFill::Surroundings
            && let Some(mask) = mask_at(encoded_at)?
        {
            image = image.filled_from_surroundings(&mask);
        }
        Ok(Self { image: Some(image), mask: mask_at(drawn_at)?, overlay, window: None, warning: None })
    }

    /// A region of the picture is drawn.
    fn within(
        input: &GenerationInput,
        image: RgbImage,
        mask: Option<&RgbImage>,
        drawing: Drawing,
    ) -> Result<Self, ImageError> {
        let inpainting = &input.inpainting;
        inpainting.check(image.size(), input.num_outputs).map_err(ImageError::TooLarge)?;
        let blur = input.mask_blur.unwrap_or(0);
        let mut whole_mask = match mask {
            Some(mask) => Mask::new(mask, image.size(), input.mask_invert)?,
            None => Mask::nothing(image.size()),
        };
        let mut picture = image;
        if let Some(outpaint) = inpainting.outpaint {
            // So that the added pixels are wholly drawn, the fading edge lies within the picture.
            whole_mask = whole_mask.outpainted(outpaint, Overlay::reach(blur));
            picture = picture.padded(outpaint);
        }
        let size = picture.size();
        let overlay = Overlay::new(picture, &whole_mask, blur);
        let drawn_at = drawing.size();
        let Some(extent) = overlay.extent() else {
            // As A1111 does.
            let warning =
                Some("the mask is empty: the whole picture was drawn at the requested size".to_owned());
            return Ok(Self { warning, ..Self::whole(input, overlay.original(), None, drawing)? });
        };
        let region = match inpainting.area {
            InpaintArea::Masked => extent.padded(inpainting.padding, size).expanded(drawing.first, size),
            InpaintArea::Whole => Region::whole(size),
        };
        let mask = whole_mask.fit(region, drawn_at)?;
        let mut image = region.cut(overlay.original()).fit(drawn_at, ResizeMode::Fill)?;
        if inpainting.fill == InpaintFill::Surroundings {
            image = image.filled_from_surroundings(&mask);
        }
        let overlay = Some(overlay.drawn_within(region));
        let window = Some(Window { whole: size, region });
        Ok(Self { image: Some(image), mask: Some(mask), overlay, window, warning: None })
    }
}

/// The pixels of a picture. Its bytes must have been fetched.
fn pixels(source: &ImageSource) -> Result<RgbImage, ImageError> {
    match source {
        ImageSource::Bytes(bytes) => decode_image(bytes),
        ImageSource::Url(_) => Err(ImageError::Unfetched),
    }
}
