// client/token_stream.h -- TokenStream: the answer to one question, pulled piece by piece. Made by
// CorpusClient::StartAsk, which must outlive it; the same thread rules. Dropped before its end, it
// cancels the question at the daemon.
#pragma once

#include <optional>
#include <string>

#include "client/client_error.h"
#include "client/corpus_client.h"

namespace corpusd {

class TokenStream {
 public:
  ~TokenStream();
  TokenStream(const TokenStream&) = delete;
  TokenStream& operator=(const TokenStream&) = delete;

  // RETURNS the next piece, or nothing when the answer is complete (then reply() is set).
  ClientResult<std::optional<std::string>> Next();
  // What the piece that Next has returned says beside its text. REQUIRES: it returned one.
  const v1::AskDelta& delta() const { return delta_; }
  // Asks the daemon to stop; Next then soon returns nothing, and reply().finish_reason is
  // "cancelled".
  void Cancel();
  // REQUIRES: Next returned nothing.
  const v1::AskReply& reply() const { return reply_; }

 private:
  friend class CorpusClient;
  TokenStream(CorpusClient* client, CorpusClient::OpenCall call) : client_(client), call_(call) {}

  CorpusClient* client_;
  CorpusClient::OpenCall call_;
  bool open_ = true;
  v1::AskDelta delta_;
  v1::AskReply reply_;
};

}  // namespace corpusd
