// Reads JSON (RFC 8259), strictly: the metadata of exported models.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace scschnet {

/// A JSON value that does not change.
class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;  // in the order of the text

  /// The whole text as one value. Throws std::invalid_argument, saying where it ceases to be JSON.
  static Json parse(std::string_view text);

  /// The member `key` of an object, or null if there is none or this is no object.
  const Json* find(std::string_view key) const;

  const bool* boolean() const { return std::get_if<bool>(&value_); }
  const double* number() const { return std::get_if<double>(&value_); }
  const std::string* string() const { return std::get_if<std::string>(&value_); }
  const Array* array() const { return std::get_if<Array>(&value_); }
  const Object* object() const { return std::get_if<Object>(&value_); }

 private:
  friend class JsonReader;
  std::variant<std::nullptr_t, bool, double, std::string, Array, Object> value_;
};

}  // namespace scschnet
