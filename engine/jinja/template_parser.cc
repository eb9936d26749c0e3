#include "engine/jinja/parser.h"

namespace corpusd::jinja {
namespace {

constexpr uint32_t kNestingMax = 60;

// What a block printed, for its filters.
ExpressionPtr Printed() {
  auto name = std::make_unique<Expression>();
  name->kind = ExpressionKind::kName;
  name->text = kPrintedName;
  return name;
}

Statement At(StatementKind kind, uint32_t line) {
  Statement statement;
  statement.kind = kind;
  statement.line = line;
  return statement;
}

class TemplateParser {
 public:
  explicit TemplateParser(const std::vector<Token>& tokens) : tokens_(tokens) {}

  Result<Block> Parse() {
    std::string end;
    Block block;
    RETURN_IF_ERROR(ParseBlock({}, &block, &end));
    return block;
  }

 private:
  // Statements up to a tag whose name is among ends, whose name goes to *end; of none, up to the
  // template's end. The tag's name is taken, not what follows it.
  Status ParseBlock(const std::vector<std::string_view>& ends, Block* block, std::string* end) {
    if (++depth_ > kNestingMax) {
      return TemplateError(tokens_.current().line, "blocks are nested deeper than " +
                                                       std::to_string(kNestingMax) + " levels");
    }
    while (true) {
      const Token& token = tokens_.Next();
      if (token.kind == TokenKind::kEnd) {
        if (ends.empty()) break;
        return TemplateError(
            token.line, "the template ends where '" + std::string(ends.back()) + "' is missing");
      }
      if (token.kind == TokenKind::kText) {
        block->push_back(At(StatementKind::kText, token.line));
        block->back().text = token.text;
        continue;
      }
      if (token.kind == TokenKind::kPrintOpen) {
        Statement print = At(StatementKind::kPrint, token.line);
        ASSIGN_OR_RETURN(print.value, tokens_.ParseTuple());
        if (tokens_.Next().kind != TokenKind::kPrintClose) return NotClosed();
        block->push_back(std::move(print));
        continue;
      }
      if (token.kind != TokenKind::kBlockOpen) return tokens_.Unexpected("a tag");
      const uint32_t line = tokens_.current().line;
      ASSIGN_OR_RETURN(const std::string name, tokens_.TakeName());
      bool is_end = false;
      for (const std::string_view candidate : ends) is_end = is_end || candidate == name;
      if (is_end) {
        *end = name;
        break;
      }
      RETURN_IF_ERROR(ParseTag(name, line, block));
    }
    --depth_;
    return OkStatus();
  }

  Status NotClosed() {
    return TemplateError(tokens_.current().line, "a tag goes on where its end is expected");
  }
  Status Close() {
    if (tokens_.current().kind != TokenKind::kBlockClose) {
      return tokens_.Unexpected("the tag's end");
    }
    tokens_.Next();
    return OkStatus();
  }

  Status ParseTag(const std::string& name, uint32_t line, Block* block) {
    Statement statement = At(StatementKind::kText, line);
    if (name == "if") {
      RETURN_IF_ERROR(ParseIf(&statement));
    } else if (name == "for") {
      RETURN_IF_ERROR(ParseFor(&statement));
    } else if (name == "set") {
      RETURN_IF_ERROR(ParseSet(&statement));
    } else if (name == "macro") {
      RETURN_IF_ERROR(ParseMacro(&statement));
    } else if (name == "filter") {
      RETURN_IF_ERROR(ParseFilterBlock(&statement));
    } else if (name == "generation") {  // transformers' mark around an assistant's words
      statement.kind = StatementKind::kBlock;
      RETURN_IF_ERROR(ParseBody("endgeneration", &statement.body));
    } else if (name == "break" || name == "continue") {
      if (loops_ == 0) return TemplateError(line, "'" + name + "' stands outside of a loop");
      statement.kind = name == "break" ? StatementKind::kBreak : StatementKind::kContinue;
      RETURN_IF_ERROR(Close());
    } else {
      return UnimplementedError("line " + std::to_string(line) + ": the tag '" + name +
                                "' is not supported");
    }
    block->push_back(std::move(statement));
    return OkStatus();
  }

  // The rest of a tag's opening, its body, and its end.
  Status ParseBody(std::string_view end, Block* body) {
    RETURN_IF_ERROR(Close());
    std::string found;
    RETURN_IF_ERROR(ParseBlock({end}, body, &found));
    return Close();
  }

  Status ParseIf(Statement* statement) {
    statement->kind = StatementKind::kIf;
    std::string end = "if";
    while (end == "if" || end == "elif") {
      Branch branch;
      ASSIGN_OR_RETURN(branch.condition, tokens_.ParseTuple());
      RETURN_IF_ERROR(Close());
      RETURN_IF_ERROR(ParseBlock({"elif", "else", "endif"}, &branch.body, &end));
      statement->branches.push_back(std::move(branch));
    }
    if (end == "else") {
      Branch branch;
      RETURN_IF_ERROR(ParseBody("endif", &branch.body));
      statement->branches.push_back(std::move(branch));
      return OkStatus();
    }
    return Close();
  }

  Status ParseNames(Statement* statement) {
    const bool closed = tokens_.SkipOperator("(");
    do {
      ASSIGN_OR_RETURN(std::string name, tokens_.TakeName());
      statement->names.push_back(std::move(name));
    } while (tokens_.SkipOperator(","));
    return closed ? tokens_.Expect(")") : OkStatus();
  }

  Status ParseFor(Statement* statement) {
    statement->kind = StatementKind::kFor;
    RETURN_IF_ERROR(ParseNames(statement));
    if (!tokens_.SkipName("in")) return tokens_.Unexpected("'in'");
    ASSIGN_OR_RETURN(statement->value, tokens_.ParseWithoutConditional());
    if (tokens_.SkipName("if")) {
      ASSIGN_OR_RETURN(statement->condition, tokens_.ParseExpression());
    }
    if (tokens_.IsName("recursive")) {
      return UnimplementedError("line " + std::to_string(statement->line) +
                                ": recursive loops are not supported");
    }
    RETURN_IF_ERROR(Close());
    std::string end;
    ++loops_;
    RETURN_IF_ERROR(ParseBlock({"else", "endfor"}, &statement->body, &end));
    --loops_;
    if (end == "else") return ParseBody("endfor", &statement->otherwise);
    return Close();
  }

  Status ParseSet(Statement* statement) {
    statement->kind = StatementKind::kSet;
    RETURN_IF_ERROR(ParseNames(statement));
    if (statement->names.size() == 1 && tokens_.SkipOperator(".")) {
      statement->text = std::move(statement->names[0]);
      ASSIGN_OR_RETURN(statement->names[0], tokens_.TakeName());
    }
    if (tokens_.SkipOperator("=")) {
      ASSIGN_OR_RETURN(statement->value, tokens_.ParseTuple());
      return Close();
    }
    if (statement->names.size() != 1 || !statement->text.empty()) return tokens_.Unexpected("'='");
    statement->kind = StatementKind::kSetBlock;
    if (tokens_.IsOperator("|")) {
      ASSIGN_OR_RETURN(statement->value, tokens_.ParseFilters(Printed()));
    }
    return ParseBody("endset", &statement->body);
  }

  Status ParseFilterBlock(Statement* statement) {
    statement->kind = StatementKind::kFilter;
    ASSIGN_OR_RETURN(statement->value, tokens_.ParseFilter(Printed()));
    ASSIGN_OR_RETURN(statement->value, tokens_.ParseFilters(std::move(statement->value)));
    return ParseBody("endfilter", &statement->body);
  }

  Status ParseMacro(Statement* statement) {
    statement->kind = StatementKind::kMacro;
    ASSIGN_OR_RETURN(statement->text, tokens_.TakeName());
    RETURN_IF_ERROR(tokens_.Expect("("));
    while (!tokens_.SkipOperator(")")) {
      if (!statement->names.empty()) RETURN_IF_ERROR(tokens_.Expect(","));
      ASSIGN_OR_RETURN(std::string name, tokens_.TakeName());
      statement->names.push_back(std::move(name));
      statement->defaults.emplace_back();
      if (tokens_.SkipOperator("=")) {
        ASSIGN_OR_RETURN(statement->defaults.back(), tokens_.ParseExpression());
      }
    }
    const uint32_t outer_loops = std::exchange(loops_, 0);
    RETURN_IF_ERROR(ParseBody("endmacro", &statement->body));
    loops_ = outer_loops;
    return OkStatus();
  }

  ExpressionParser tokens_;
  uint32_t depth_ = 0;
  uint32_t loops_ = 0;  // around the current place
};

}  // namespace

Result<Block> ParseTemplate(std::string_view source) {
  ASSIGN_OR_RETURN(const std::vector<Token> tokens, Tokenize(source));
  return TemplateParser(tokens).Parse();
}

}  // namespace corpusd::jinja
