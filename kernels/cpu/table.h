// The table of kernels for whatever Vector is: included by the kernels_*.cc alone, after their vector_*.h.

#ifndef QUIRE_KERNELS_CPU_TABLE_H_
#define QUIRE_KERNELS_CPU_TABLE_H_

#include "kernels/activation/cpu_row.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/multiply_adds.h"
#include "kernels/cpu/row.h"
#include "kernels/gated_activation/cpu_row.h"
#include "kernels/layer_norm/cpu_row.h"
#include "kernels/linear/cpu_panel.h"
#include "kernels/rms_norm/cpu_row.h"
#include "kernels/rope/cpu_row.h"

namespace quire {
namespace {

// Indexed by DType: float32, bfloat16, float16.
template <class BFloat16Kind>
constexpr CpuKernels kTable = {
    {LinearPanel<Float32Weight>, LinearPanel<BFloat16Kind>, LinearPanel<Float16Weight>},
    {RmsNormRow<float>, RmsNormRow<BFloat16Bits>, RmsNormRow<Float16Bits>},
    RmsNormRow<float, true>,
    {LayerNormRow<float>, LayerNormRow<BFloat16Bits>, LayerNormRow<Float16Bits>},
    {GatedActivationRow<float>, GatedActivationRow<BFloat16Bits>, GatedActivationRow<Float16Bits>},
    {ActivationRow<float>, ActivationRow<BFloat16Bits>, ActivationRow<Float16Bits>},
    Rotate,
    AddScaledRow,
    {ConvertRow<float>, ConvertRow<BFloat16Bits>, ConvertRow<Float16Bits>},
    MultiplyAdds<BFloat16Kind>,
};

}  // namespace
}  // namespace quire

#endif  // QUIRE_KERNELS_CPU_TABLE_H_
