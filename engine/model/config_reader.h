// engine/model/config_reader.h -- reads and checks single fields of a config.json. Every error is
// one sentence that names file, field and value. Views the object; one thread.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "store/base/result.h"

namespace corpusd {

class ConfigReader {
 public:
  // where: the file, for messages. object must outlive the reader.
  ConfigReader(const nlohmann::json& object, std::string where)
      : object_(object), where_(std::move(where)) {}

  // A member that is there and not null.
  bool Has(const std::string& key) const;
  // There, but null: that is a value of its own for some fields.
  bool IsNull(const std::string& key) const;
  Result<uint32_t> Number(const std::string& key, uint64_t max) const;  // 1 to max
  Result<uint32_t> NumberOr(const std::string& key, uint64_t max, uint32_t otherwise) const;
  Result<double> Real(const std::string& key) const;  // finite
  Result<double> RealOr(const std::string& key, double otherwise) const;
  // true, false, or a number, which is true unless 0.
  Result<bool> FlagOr(const std::string& key, bool otherwise) const;
  Result<std::string> Text(const std::string& key) const;
  Result<std::string> TextOr(const std::string& key, const std::string& otherwise) const;
  // Whole numbers from 0 to max, at most count_max of them.
  Result<std::vector<uint32_t>> Numbers(const std::string& key, uint64_t max,
                                        size_t count_max) const;
  Result<std::vector<std::string>> Texts(const std::string& key, size_t count_max) const;
  // A reader of a member that is an object.
  Result<ConfigReader> Object(const std::string& key) const;

  Status Wrong(const std::string& key, const std::string& expected) const;
  Status Unsupported(const std::string& what) const;
  const std::string& where() const { return where_; }

 private:
  const nlohmann::json& object_;
  std::string where_;
};

}  // namespace corpusd
