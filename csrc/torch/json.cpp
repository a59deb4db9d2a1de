// A recursive descent over the text, with a limit on the depth.
#include "json.hpp"

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace scschnet {

class JsonReader {
 public:
  explicit JsonReader(std::string_view text) : text_(text) {}

  Json read() {
    Json json = value(0);
    skip_space();
    if (at_ != text_.size()) fail("the end");
    return json;
  }

 private:
  static constexpr int deepest = 64;

  [[noreturn]] void fail(const char* expected) const {
    throw std::invalid_argument("expected " + std::string(expected) + " at byte " +
                                std::to_string(at_));
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  bool take(std::string_view token) {
    if (text_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }

  void skip_space() {
    while (peek() == ' ' || peek() == '\n' || peek() == '\r' || peek() == '\t') ++at_;
  }

  Json value(int depth) {
    if (depth > deepest) fail("less nesting");
    skip_space();
    Json json;
    if (take("{")) {
      json.value_ = object(depth + 1);
    } else if (take("[")) {
      json.value_ = array(depth + 1);
    } else if (peek() == '"') {
      json.value_ = string();
    } else if (take("true")) {
      json.value_ = true;
    } else if (take("false")) {
      json.value_ = false;
    } else if (!take("null")) {
      json.value_ = number();
    }
    return json;
  }

  Json::Object object(int depth) {
    Json::Object members;
    skip_space();
    if (take("}")) return members;
    do {
      skip_space();
      std::string key = string();
      skip_space();
      if (!take(":")) fail("`:`");
      members.emplace_back(std::move(key), value(depth));
      skip_space();
    } while (take(","));
    if (!take("}")) fail("`,` or `}`");
    return members;
  }

  Json::Array array(int depth) {
    Json::Array items;
    skip_space();
    if (take("]")) return items;
    do {
      items.push_back(value(depth));
      skip_space();
    } while (take(","));
    if (!take("]")) fail("`,` or `]`");
    return items;
  }

  /// from_chars reads the grammar of JSON and a little more: inf, nan, 007 and 1., which are
  /// refused here.
  double number() {
    const std::size_t digits = at_ + (peek() == '-' ? 1 : 0);
    const auto is_digit = [this](std::size_t k) {
      return k < text_.size() && text_[k] >= '0' && text_[k] <= '9';
    };
    if (!is_digit(digits) || (text_[digits] == '0' && is_digit(digits + 1))) fail("a value");
    double result = 0;
    const char* begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), result);
    if (error != std::errc() || end[-1] == '.') fail("a number");
    at_ += static_cast<std::size_t>(end - begin);
    return result;
  }

  std::string string() {
    if (!take("\"")) fail("`\"`");
    std::string result;
    while (peek() != '"') {
      if (at_ >= text_.size() || static_cast<unsigned char>(peek()) < 0x20) fail("`\"`");
      if (take("\\")) {
        escape(result);
      } else {
        result += text_[at_++];
      }
    }
    ++at_;
    return result;
  }

  void escape(std::string& to) {
    static constexpr std::string_view letters = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
    const std::size_t k = letters.find(peek());
    if (peek() != '\0' && k != std::string_view::npos) {
      ++at_;
      to += meant[k];
    } else if (take("u")) {
      append_utf8(to, code_point());
    } else {
      fail("an escape");
    }
  }

  std::uint32_t code_point() {
    const std::uint32_t first = four_hex_digits();
    if (first < 0xD800 || first > 0xDFFF) return first;
    if (first > 0xDBFF || !take("\\u")) fail("a pair of surrogates");
    const std::uint32_t second = four_hex_digits();
    if (second < 0xDC00 || second > 0xDFFF) fail("a pair of surrogates");
    return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
  }

  std::uint32_t four_hex_digits() {
    std::uint32_t result = 0;
    const std::string_view digits = text_.substr(at_, 4);
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), result, 16);
    if (error != std::errc() || end != digits.data() + 4) fail("four hexadecimal digits");
    at_ += 4;
    return result;
  }

  static void append_utf8(std::string& to, std::uint32_t code) {
    const auto tail = [&](int shift) { to += static_cast<char>(0x80 | ((code >> shift) & 0x3F)); };
    if (code < 0x80) {
      to += static_cast<char>(code);
    } else if (code < 0x800) {
      to += static_cast<char>(0xC0 | (code >> 6));
      tail(0);
    } else if (code < 0x10000) {
      to += static_cast<char>(0xE0 | (code >> 12));
      tail(6), tail(0);
    } else {
      to += static_cast<char>(0xF0 | (code >> 18));
      tail(12), tail(6), tail(0);
    }
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

Json Json::parse(std::string_view text) {
  return JsonReader(text).read();
}

const Json* Json::find(std::string_view key) const {
  if (const Object* members = object()) {
    for (const auto& [name, json] : *members) {
      if (name == key) return &json;
    }
  }
  return nullptr;
}

}  // namespace scschnet
