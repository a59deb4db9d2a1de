// Checks of filter tables: every instruction set and scalar type against loops written from the
// contract, gradients against differences of these.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "../core/filter_table.hpp"

namespace {

using namespace scschnet;
using cpu::InstructionSet;
using Values = std::vector<double>;

void expect(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "failed: %s\n", what.c_str());
  std::exit(1);
}

/// Parameters of a filter generator end to end: A1, b1, A2, b2.
template <class Pointer>
FilterParameters<Pointer> parameters_in(Pointer memory, const FilterTableSizes& n) {
  const Pointer hidden_bias = memory + n.n_filters * n.n_rbf;
  const Pointer output_weight = hidden_bias + n.n_filters;
  return {memory, hidden_bias, output_weight, output_weight + n.n_filters * n.n_filters};
}

std::int64_t n_parameters(const FilterTableSizes& n) {
  return n.n_filters * (n.n_rbf + n.n_filters + 2);
}

Values exact_table(const FilterTableSizes& n, const Values& prefilter, const Values& rbf,
                   const Values& parameters) {
  const auto p = parameters_in(parameters.data(), n);
  Values hidden, table;
  for (std::int64_t node = 0; node < n.n_nodes(); ++node) {
    for (std::int64_t f = 0; f < n.n_filters; ++f) {
      double z = p.hidden_bias[f];
      for (std::int64_t k = 0; k < n.n_rbf; ++k)
        z += rbf[node * n.n_rbf + k] * p.hidden_weight[f * n.n_rbf + k];
      hidden.push_back(std::log1p(std::exp(z)) - std::log(2.0));
    }
  }
  for (std::int64_t row = 0; row < n.n_rows; ++row) {
    for (std::int64_t f = 0; f < n.n_filters; ++f) {
      double sum = p.output_bias[f];
      for (std::int64_t k = 0; k < n.n_filters; ++k) {
        for (int m = -prefilter_order; m <= prefilter_order; ++m) {
          sum += p.output_weight[f * n.n_filters + k] * prefilter[std::abs(m)] *
                 hidden[(row + prefilter_order + m) * n.n_filters + k];
        }
      }
      table.push_back(sum);
    }
  }
  return table;
}

template <class Scalar>
std::vector<Scalar> rounded(const Values& values) {
  return {values.begin(), values.end()};
}

struct Case {
  FilterTableSizes n;
  Values prefilter, rbf, parameters, direction, table_bar;

  Case(std::int64_t n_rows, std::int64_t n_rbf, std::int64_t n_filters)
      : n{n_rows, n_rbf, n_filters} {
    std::mt19937 random(5);
    std::uniform_real_distribution<double> uniform(-1, 1);
    const auto fill = [&](Values& values, std::int64_t size) {
      for (std::int64_t k = 0; k < size; ++k) values.push_back(static_cast<float>(uniform(random)));
    };
    fill(prefilter, prefilter_order + 1);
    fill(rbf, n.n_nodes() * n_rbf);
    fill(parameters, n_parameters(n));
    fill(direction, n_parameters(n));
    fill(table_bar, n_rows * n_filters);
  }

  /// Derivative of sum(table_bar o table) along the direction.
  double exact_slope() const {
    const double h = 1e-5;
    double slope = 0;
    for (const double sign : {1.0, -1.0}) {
      Values moved = parameters;
      for (std::size_t k = 0; k < moved.size(); ++k) moved[k] += sign * h * direction[k];
      const Values table = exact_table(n, prefilter, rbf, moved);
      for (std::size_t k = 0; k < table.size(); ++k)
        slope += sign * table_bar[k] * table[k] / (2 * h);
    }
    return slope;
  }
};

template <class Scalar>
void check(const Case& c, InstructionSet isa) {
  const double tolerance = sizeof(Scalar) == 4 ? 1e-5 : 1e-9;
  const std::string what = std::string(cpu::name(isa)) +
                           (sizeof(Scalar) == 4 ? " float, " : " double, ") +
                           std::to_string(c.n.n_filters) + " filters";
  const auto parameters = rounded<Scalar>(c.parameters), rbf = rounded<Scalar>(c.rbf),
             table_bar = rounded<Scalar>(c.table_bar);
  const Scalar rubbish = std::numeric_limits<Scalar>::quiet_NaN();
  std::vector<Scalar> table(c.table_bar.size(), rubbish), coefficients(table),
      gradients(parameters.size(), rubbish);
  std::vector<Scalar> slopes(c.n.n_nodes() * c.n.n_filters, rubbish);
  const auto p = parameters_in(parameters.data(), c.n);
  cpu::filter_table<Scalar>(c.n, c.prefilter.data(), c.rbf.data(), p, table.data(),
                            coefficients.data(), slopes.data(), isa);
  const Values exact = exact_table(c.n, c.prefilter, c.rbf, c.parameters);
  for (std::size_t k = 0; k < table.size(); ++k) {
    expect(std::abs(table[k] - exact[k]) <= tolerance * (1 + std::abs(exact[k])), what);
  }
  cpu::filter_table_backward<Scalar>(c.n, c.prefilter.data(), rbf.data(), p.output_weight,
                                     table_bar.data(), coefficients.data(), slopes.data(),
                                     parameters_in(gradients.data(), c.n), isa);
  double slope = 0, magnitude = 1;
  for (std::size_t k = 0; k < gradients.size(); ++k) {
    slope += gradients[k] * c.direction[k];
    magnitude += std::abs(gradients[k] * c.direction[k]);
  }
  expect(std::abs(slope - c.exact_slope()) <= tolerance * magnitude, what + ": gradient");
}

}  // namespace

int main() {
  for (const auto& c : {Case(7, 2, 1), Case(10, 5, 20), Case(33, 25, 32), Case(12, 7, 75)}) {
    for (const InstructionSet isa : cpu::available_instruction_sets()) {
      check<float>(c, isa);
      check<double>(c, isa);
    }
  }
  std::puts("filter table: ok");
}
