//! From a recipe and its data to a model that can be trained.
//!
//! Owns: which towers run where (from scratch, open, or frozen with their features cached), what each
//! side is fed, the layout of all parameters and their first values.
//! Deliberately absent: steps, and writing what comes of them (see `product`).

use std::ops::Range;
use std::path::Path;

use diptych_core::Modality;
use diptych_encoder::anatomy::{Anatomy, VisionParts};
use diptych_encoder::{
    CLIP_MEAN, CLIP_STD, Checkpoint, ClipConfig, ImageTrunk, Preprocessing, TextCheckpoint, TextTokenizer,
    TextTrunk, clip_anatomy,
};

use crate::augment::Augment;
use crate::closed;
use crate::data::{Collection, Pixels};
use crate::error::{TrainError, unusable};
use crate::export::{self, OBJECTIVE, Scratch};
use crate::features::{Desk, ViewPlan, of_pictures, of_texts};
use crate::head::Head;
use crate::model::{Model, Side, Trunk};
use crate::objective::Scalar;
use crate::params::{Init, Layout, Values};
use crate::product::{OpenTower, Part, Product};
use crate::recipe::{AugmentRecipe, Open, Recipe};
use crate::sampler::{Images, Purpose, TextInputs, Texts, generator, tokenise};
use crate::tower::{self, ImageTower, TextTower};
use crate::vocabulary::Vocabulary;

/// Prefixes of the heads' tensors.
pub(crate) const IMAGE_HEAD: &str = "image_head";
pub(crate) const TEXT_HEAD: &str = "text_head";

/// Everything a run starts from.
pub(crate) struct Setup {
    /// Both sides.
    pub model: Model,
    /// First values of what is trained.
    pub start: Vec<f32>,
    /// Where the objectives' scalars lie among them: at the end.
    pub scalars: Range<usize>,
    /// What the sides are fed in training.
    pub train: (Images, Texts),
    /// What they are fed in validation.
    pub held_out: (Images, Texts),
    /// What will be written.
    pub product: Product,
}

/// Builds a run. Frozen towers run over all data here, or their cached features are read.
pub(crate) fn setup(
    recipe: &Recipe,
    scalars: Vec<Scalar>,
    train: &Collection,
    held_out: &Collection,
    desk: &mut Desk<'_>,
) -> Result<Setup, TrainError> {
    match recipe.towers.paths() {
        [Some(image), Some(text)] => pretrained(recipe, scalars, (train, held_out), (image, text), desk),
        _ => from_scratch(recipe, scalars, train, held_out),
    }
}

fn from_scratch(
    recipe: &Recipe,
    scalars: Vec<Scalar>,
    train: &Collection,
    held_out: &Collection,
) -> Result<Setup, TrainError> {
    let preprocessing = Preprocessing::for_training(recipe.model.image_size, CLIP_MEAN, CLIP_STD);
    let texts: Vec<String> = train.whole_texts().cloned().collect();
    let vocabulary = Vocabulary::learn(&texts, recipe.tokenizer.vocab_size)?;
    let tokenizer = TextTokenizer::from_tokenizers(vocabulary.tokenizer()?, recipe.model.context_length)
        .map_err(|e| TrainError::Tokenizer { reason: e.to_string() })?;
    let config = export::config(&recipe.model, &vocabulary);
    let (model, scalars) = scratch_model(&config, scalars);
    let start = model.layout().init(&mut generator(recipe.train.seed, Purpose::Weights, 0));
    let side = |collection: &Collection| -> Result<(Images, Texts), TrainError> {
        Ok((open_images(collection, &preprocessing, &recipe.augment)?, open_texts(collection, &tokenizer)?))
    };
    let dtype = recipe.output.dtype;
    Ok(Setup {
        train: side(train)?,
        held_out: side(held_out)?,
        model,
        start,
        scalars,
        product: Product::Scratch(Box::new(Scratch { config, vocabulary, preprocessing, dtype })),
    })
}

/// A model of new towers, and where its scalars lie.
pub(crate) fn scratch_model(config: &ClipConfig, scalars: Vec<Scalar>) -> (Model, Range<usize>) {
    let Anatomy { vision, text, .. } = clip_anatomy(config);
    let VisionParts::Vit(vision) = vision else { unreachable!("CLIP's image tower is a transformer") };
    let mut layout = Layout::default();
    let image = Trunk::Image(Box::new(ImageTower::new(&vision, tower::Open::All, &mut layout)));
    let image = Side::new(image, None, 0..layout.len());
    let before = layout.len();
    let text = Trunk::Text(Box::new(TextTower::new(&text, tower::Open::All, &mut layout)));
    let text = Side::new(text, None, before..layout.len());
    let scalars = push_scalars(&mut layout, scalars);
    (Model::new(image, text, layout, Vec::new()), scalars)
}

fn push_scalars(layout: &mut Layout, scalars: Vec<Scalar>) -> Range<usize> {
    let before = layout.len();
    for scalar in scalars {
        layout.push(format!("{OBJECTIVE}{}", scalar.name), &[], Init::Constant(scalar.start), false);
    }
    before..layout.len()
}

fn open_images(
    collection: &Collection,
    preprocessing: &Preprocessing,
    augment: &AugmentRecipe,
) -> Result<Images, TrainError> {
    let pixels = Pixels::of(collection, preprocessing).map_err(|reason| TrainError::Features { reason })?;
    Ok(Images::Pixels(pixels, Augment::new(augment.clone(), preprocessing)))
}

fn open_texts(collection: &Collection, tokenizer: &TextTokenizer) -> Result<Texts, TrainError> {
    let (distinct, of_record) = Texts::distinct(collection);
    let ids = distinct.iter().map(|text| tokenise(tokenizer, text)).collect::<Result<_, _>>()?;
    Ok(Texts { inputs: TextInputs::Tokens(ids), of_record })
}

/// One side of a run on pre-trained towers.
struct Loaded<T> {
    train: T,
    held_out: T,
    trunk: Trunk,
    open: Option<OpenTower>,
}

fn pretrained(
    recipe: &Recipe,
    scalars: Vec<Scalar>,
    (train, held_out): (&Collection, &Collection),
    (image_path, text_path): (&Path, &Path),
    desk: &mut Desk<'_>,
) -> Result<Setup, TrainError> {
    let mut layout = Layout::default();
    let images = image_side(recipe, image_path, (train, held_out), &mut layout, desk)?;
    // What is solved for needs the features of both sides before there are heads.
    let options = recipe.head.as_ref().and_then(|head| head.cca.as_ref());
    let mut early = match options {
        Some(_) => Some(text_side(recipe, text_path, (train, held_out), &mut layout, desk)?),
        None => None,
    };
    let solved = match (options, &early) {
        (Some(options), Some(texts)) => Some(closed::solve(options, train, &images.train, &texts.train)?),
        _ => None,
    };
    let dims = solved.as_ref().map(|cca| cca.image.outputs);
    let image = with_head(recipe, images.trunk, IMAGE_HEAD, (0, dims), &mut layout);
    let before = layout.len();
    let texts = match early.take() {
        Some(texts) => texts,
        None => text_side(recipe, text_path, (train, held_out), &mut layout, desk)?,
    };
    let text = with_head(recipe, texts.trunk, TEXT_HEAD, (before, dims), &mut layout);
    if image.dim() != text.dim() {
        let reason = format!(
            "gives {} dimensions, but the text side {}; choose towers of one space or another head.kind",
            image.dim(),
            text.dim()
        );
        return Err(TrainError::Tower { path: image_path.to_path_buf(), reason });
    }
    let scalars = push_scalars(&mut layout, scalars);
    let stored = |name: &str| -> Result<Option<Vec<f32>>, TrainError> {
        if let Some(values) = solved.as_ref().and_then(|cca| closed::tensor(cca, name)) {
            return Ok(Some(values));
        }
        for (open, path) in [(&images.open, image_path), (&texts.open, text_path)] {
            if let Some(open) = open.as_ref().filter(|open| open.owns(name)) {
                return open.tensor(name).map(Some).map_err(|e| unusable(path, e.to_string()));
            }
        }
        Ok(None)
    };
    let mut rng = generator(recipe.train.seed, Purpose::Weights, 0);
    let Values { trained, frozen } = layout.load(&mut rng, |slot| stored(&slot.name))?;
    let part = |source: &Path, open, modality| Part { source: source.to_path_buf(), open, modality };
    let product = match recipe.head {
        // Without heads both towers are of one dual encoder.
        None => Product::Checkpoint(Box::new(
            Checkpoint::open(image_path).map_err(|e| unusable(image_path, e.to_string()))?,
        )),
        Some(_) => Product::Composed(Box::new([
            part(image_path, images.open, Modality::Image),
            part(text_path, texts.open, Modality::Text),
        ])),
    };
    Ok(Setup {
        model: Model::new(image, text, layout, frozen),
        start: trained,
        scalars,
        train: (images.train, texts.train),
        held_out: (images.held_out, texts.held_out),
        product,
    })
}

/// A side with the recipe's head, whose parameters start at `before`; `solved` is the width of the layer
/// in front that is solved for.
fn with_head(
    recipe: &Recipe,
    trunk: Trunk,
    prefix: &str,
    (before, solved): (usize, Option<usize>),
    layout: &mut Layout,
) -> Side {
    let head = recipe.head.as_ref().map(|head| Head::new(head, prefix, trunk.out(), solved, layout));
    Side::new(trunk, head, before..layout.len())
}

fn image_side(
    recipe: &Recipe,
    path: &Path,
    (train, held_out): (&Collection, &Collection),
    layout: &mut Layout,
    desk: &mut Desk<'_>,
) -> Result<Loaded<Images>, TrainError> {
    if recipe.towers.open_image == Open::None {
        let trunk = ImageTrunk::open(path).map_err(|e| unusable(path, e.to_string()))?;
        let plan = |views| ViewPlan { views, augment: recipe.augment.clone(), seed: recipe.train.seed };
        let views = recipe.towers.views;
        return Ok(Loaded {
            train: Images::Features(of_pictures(&trunk, &train.pictures, &plan(views), desk)?, views),
            held_out: Images::Features(of_pictures(&trunk, &held_out.pictures, &plan(0), desk)?, 0),
            trunk: Trunk::Rows(trunk.width()),
            open: None,
        });
    }
    let checkpoint = Checkpoint::open(path).map_err(|e| match ImageTrunk::open(path) {
        Ok(_) => only_frozen(path),
        Err(_) => unusable(path, e.to_string()),
    })?;
    let parts = match &checkpoint.anatomy().vision {
        VisionParts::Vit(parts) => parts,
        VisionParts::Convolutional(name) => {
            let reason = format!(
                "its image tower {name} is a network of convolutions, which can only be used frozen; set \
                 towers.open_image to \"none\" and put [head] on it"
            );
            return Err(unusable(path, reason));
        }
    };
    enough_blocks("towers.open_image", recipe.towers.open_image, parts.blocks.len())?;
    let (high, wide) = parts.spec.image;
    if high != wide {
        let reason = format!("it reads images of {high} x {wide}; only square ones can be trained on");
        return Err(unusable(path, reason));
    }
    let preprocessing = checkpoint.preprocessing();
    Ok(Loaded {
        train: open_images(train, preprocessing, &recipe.augment)?,
        held_out: open_images(held_out, preprocessing, &recipe.augment)?,
        trunk: Trunk::Image(Box::new(ImageTower::new(parts, recipe.towers.open_image.into(), layout))),
        open: Some(OpenTower::Image(Box::new(checkpoint))),
    })
}

fn text_side(
    recipe: &Recipe,
    path: &Path,
    (train, held_out): (&Collection, &Collection),
    layout: &mut Layout,
    desk: &mut Desk<'_>,
) -> Result<Loaded<Texts>, TrainError> {
    if recipe.towers.open_text == Open::None {
        let trunk = TextTrunk::open(path).map_err(|e| unusable(path, e.to_string()))?;
        let mut features = |collection: &Collection| -> Result<Texts, TrainError> {
            let (distinct, of_record) = Texts::distinct(collection);
            Ok(Texts { inputs: TextInputs::Features(of_texts(&trunk, &distinct, desk)?), of_record })
        };
        return Ok(Loaded {
            train: features(train)?,
            held_out: features(held_out)?,
            trunk: Trunk::Rows(trunk.width()),
            open: None,
        });
    }
    let checkpoint = TextCheckpoint::open(path).map_err(|e| unusable(path, e.to_string()))?;
    enough_blocks("towers.open_text", recipe.towers.open_text, checkpoint.parts().blocks.len())?;
    Ok(Loaded {
        train: open_texts(train, checkpoint.tokenizer())?,
        held_out: open_texts(held_out, checkpoint.tokenizer())?,
        trunk: Trunk::Text(Box::new(TextTower::new(
            checkpoint.parts(),
            recipe.towers.open_text.into(),
            layout,
        ))),
        open: Some(OpenTower::Text(Box::new(checkpoint))),
    })
}

/// Refuses to open more blocks than a tower has.
fn enough_blocks(key: &'static str, open: Open, blocks: usize) -> Result<(), TrainError> {
    match open {
        Open::Last(wanted) if wanted > blocks => {
            let reason = format!("is {wanted}, but the tower has {blocks} blocks; lower it or write \"all\"");
            Err(TrainError::RecipeValue { key, reason })
        }
        _ => Ok(()),
    }
}

/// A tower that can be run, but is no half of a dual encoder that could be written again.
fn only_frozen(path: &Path) -> TrainError {
    let reason = "it is a tower alone, which can only be used frozen; set towers.open_image to \"none\" and \
                  put [head] on it, or take a dual encoder";
    unusable(path, reason.to_owned())
}

impl From<Open> for tower::Open {
    fn from(open: Open) -> Self {
        match open {
            Open::None => Self::None,
            Open::Last(blocks) => Self::Last(blocks),
            Open::All => Self::All,
        }
    }
}
