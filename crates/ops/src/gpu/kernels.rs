//! What the kernels share: the shape of their launches and the sums within a cube (CUDA's thread block).

use cubecl::prelude::*;

/// Units (CUDA's threads) of a cube.
pub const UNITS: u32 = 256;
/// How often their number can be halved.
const HALVINGS: u32 = UNITS.ilog2();

/// A number of elements; no tensor of the model has as many as 2^32.
pub fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A cube for each of this many pieces of work. What is launched beyond them, because a side of the grid has a limit, finds
/// its number too large.
pub fn cubes(count: usize) -> CubeCount {
    const SIDE: usize = 1 << 15;
    CubeCount::Static(number(count.clamp(1, SIDE)), number(count.div_ceil(SIDE).max(1)), 1)
}

/// A unit for each element.
pub fn cubes_of_elements(elements: usize) -> CubeCount {
    cubes(elements.div_ceil(UNITS as usize))
}

/// The units of a cube.
pub fn units() -> CubeDim {
    CubeDim::new_1d(UNITS)
}

/// The sum of what the units of a cube have, for all of them.
#[cube]
pub fn sum_of_cube(value: f32) -> f32 {
    let mut sums = SharedMemory::<f32>::new(UNITS as usize);
    sums[UNIT_POS as usize] = value;
    sync_cube();
    #[unroll]
    for step in 0..HALVINGS {
        let half = comptime![UNITS >> (step + 1)];
        if UNIT_POS < half {
            let other = sums[(UNIT_POS + half) as usize];
            sums[UNIT_POS as usize] += other;
        }
        sync_cube();
    }
    let sum = sums[0];
    sync_cube();
    sum
}

/// The units of a cube whose planes (CUDA's warps) have a row each.
pub fn planes<R: Runtime>(client: &ComputeClient<R>) -> CubeDim {
    let plane = client.properties().hardware.plane_size_max.clamp(1, UNITS);
    CubeDim::new_2d(plane, UNITS / plane)
}

/// A plane for each row.
pub fn cubes_of_rows(rows: usize, planes: CubeDim) -> CubeCount {
    cubes(rows.div_ceil(planes.y as usize))
}

/// The row that a plane has.
#[cube]
pub fn row_of_plane() -> u32 {
    CUBE_POS as u32 * CUBE_DIM_Y + UNIT_POS_Y
}
