//! Products of matrices. Burn tries all of its kernels and takes the fastest one; but those of `cubek` 0.2 that load in two
//! stages work on an even number of stages, and where the inner size needs an odd number of them, without a rest, the last
//! one reads past the matrix (`TilingBlueprint::builder` looks at one stage only). They are tried where the inner size is a
//! multiple of two stages of any of them, and left out elsewhere.

use burn::tensor::DType;
use burn_cubecl::{
    CubeRuntime, CubeTuneId,
    kernel::matmul::{MatmulStrategy, matmul},
    tensor::CubeTensor,
};
use cubecl::tune::{LocalTuner, Tunable, TunableSet, TuneGroup, local_tuner};
use cubek::{
    matmul::{
        components::tile::TileMatmulKind,
        definition::{MatmulElems, MatmulGlobalElems, MatmulKind},
        launch::{MatmulAutotuneKey, MatmulGlobalScale, Strategy, launch_ref},
        routines::{BlueprintStrategy, TileSizeSelection, simple::SimpleArgs, simple_unit::SimpleUnitSelectionArgs},
    },
    std::InputBinding,
};

use super::new_empty;

/// A multiple of two stages of every kernel.
const TWO_STAGES: usize = 128;

/// A product of matrices, or of two stacks of them, into contiguous memory of this shape and type.
pub fn product<R: CubeRuntime, const D: usize>(
    x: CubeTensor<R>,
    y: CubeTensor<R>,
    shape: [usize; D],
    dtype: DType,
) -> CubeTensor<R> {
    let out = new_empty(&x, shape, dtype);
    let inner = x.meta.shape()[D - 1];
    let is_of_vectors = inner == 1 || shape[D - 1] == 1 || shape[D - 2] == 1;
    if is_of_vectors || inner.is_multiple_of(TWO_STAGES) {
        return match matmul(x, y, Some(out), MatmulStrategy::default(), dtype) {
            Ok(product) => product,
            Err(refused) => unreachable!("the shapes are those of matrices that can be multiplied: {refused:?}"),
        };
    }
    in_single_stages(x, y, out.clone());
    out
}

/// A matrix, or the matrices of a stack, the other way round; nothing moves.
pub fn transposed<R: CubeRuntime>(mut x: CubeTensor<R>) -> CubeTensor<R> {
    let rank = x.meta.rank();
    x.meta.swap(rank - 2, rank - 1);
    x
}

type Inputs<R> = (CubeTensor<R>, CubeTensor<R>, CubeTensor<R>);

fn in_single_stages<R: CubeRuntime>(x: CubeTensor<R>, y: CubeTensor<R>, out: CubeTensor<R>) {
    static TUNER: LocalTuner<MatmulAutotuneKey, CubeTuneId> = local_tuner!();
    let set = TUNER.init(candidates::<R>);
    let client = x.client.clone();
    TUNER.execute(&CubeTuneId::new(&client, &x.device), &client, set, (x, y, out));
}

/// Burn's candidates without those that work in two stages, in Burn's order of importance.
fn candidates<R: CubeRuntime>() -> TunableSet<MatmulAutotuneKey, Inputs<R>, ()> {
    let is_small = |key: &MatmulAutotuneKey| matches!(key.analysis.scale_global, MatmulGlobalScale::Small);
    let accelerated = TuneGroup::<MatmulAutotuneKey>::new("accelerated", |key| match key.analysis.scale_global {
        MatmulGlobalScale::Large => 3,
        _ => 2,
    });
    let unit = TuneGroup::<MatmulAutotuneKey>::new("unit", move |key| {
        if is_small(key) || !matches!(key.analysis.kind, MatmulKind::General) { 2 } else { 1 }
    });
    let simple = |multi_rows, tile_matmul| BlueprintStrategy::Inferred(SimpleArgs { multi_rows, tile_matmul });
    let of_units = |tile_size| Strategy::SimpleUnit(BlueprintStrategy::Inferred(SimpleUnitSelectionArgs { tile_size }));
    let sizes = [TileSizeSelection::MaxTileSize, TileSizeSelection::MinTileSize];
    let mut accelerated_ones = Vec::new();
    for multi_rows in [false, true] {
        accelerated_ones.extend([
            Strategy::SimpleCyclicCmma(simple(multi_rows, TileMatmulKind::Cmma)),
            Strategy::SimpleCyclicMma(simple(multi_rows, TileMatmulKind::Mma)),
        ]);
    }
    let mut set =
        TunableSet::new(key::<R>, |_: &MatmulAutotuneKey, (x, y, out): &Inputs<R>| (x.clone(), y.clone(), out.copy()));
    // The first one always works; it is tried where nothing else does.
    let naive = (Strategy::Naive, &unit, 0);
    let rest = sizes.map(of_units).into_iter().map(|strategy| (strategy, &unit, 1));
    let rest = rest.chain(accelerated_ones.into_iter().map(|strategy| (strategy, &accelerated, 1)));
    for (strategy, group, priority) in std::iter::once(naive).chain(rest) {
        let name = strategy.to_string();
        let run = move |(x, y, out): Inputs<R>| launch(&strategy, x, y, out);
        set = set.with(Tunable::new(&name, run).group(group, move |_| priority));
    }
    set
}

fn launch<R: CubeRuntime>(
    strategy: &Strategy,
    x: CubeTensor<R>,
    y: CubeTensor<R>,
    out: CubeTensor<R>,
) -> Result<(), String> {
    let (client, left, right) = (out.client.clone(), x.dtype, y.dtype);
    let types = MatmulGlobalElems { lhs: left.into(), rhs: right.into(), out: out.dtype.into() };
    let (x, y) = (InputBinding::new(x.binding(), left.into()), InputBinding::new(y.binding(), right.into()));
    launch_ref(strategy, &client, x, y, out.binding(), &mut MatmulElems::from_globals(&types))
        .map_err(|refused| format!("{refused:?}"))
}

fn key<R: CubeRuntime>((x, y, out): &Inputs<R>) -> MatmulAutotuneKey {
    MatmulAutotuneKey::generate(
        &x.client,
        x.meta.shape(),
        y.meta.shape(),
        x.meta.strides(),
        y.meta.strides(),
        x.dtype.into(),
        y.dtype.into(),
        out.dtype.into(),
        None,
        None,
    )
}
