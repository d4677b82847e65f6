// The loss of the default SSB-VAE: cross-entropy of classes, and contrast of embeddings.
#pragma once

#include <cstddef>

namespace ssbhash {

// Items, a neighbour of each, then labelled items. `outputs` has class scores beside embeddings.
struct ClassAndItem {
    const float *outputs;  // [n, n_classes + width]
    const float *products; // [n_pairs, n_pairs] of the embeddings of items and neighbours
    const float *target;   // [n, n_classes] class probabilities
    const float *share;    // [n] weight of each cross-entropy
    std::size_t n, n_pairs, n_classes, width;
    bool multilabel;
    // Embeddings are taken at length sqrt(scale); shorter ones than `least` are taken for zero.
    float scale, least, contrast_weight;

    std::size_t n_outputs() const { return n_classes + width; }
};

// The terms of the loss, class + labelled + contrast_weight * contrast, and its gradient. That of
// the embeddings still lacks `slopes` times the neighbours, and its transpose times the items.
struct ClassAndItemGradient {
    double class_, contrast, labelled;
    float *outputs; // [n, n_classes + width]
    float *slopes;  // [n_pairs, n_pairs]
};

void class_and_item(const ClassAndItem &loss, ClassAndItemGradient &gradient);

} // namespace ssbhash
