#include "engine/tokenizer/chat_layout.h"

#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"

namespace corpusd {
namespace {

Result<ChatLayout> LayoutOf(const std::string& text) {
  ChatSource source;
  source.where = "model";
  source.text = text;
  source.bos_text = "<s>";
  source.eos_text = "</s>";
  return FindChatLayout(source);
}

TEST(ChatLayout, RolesWithinMarks) {
  const auto layout = LayoutOf(
      "{{ bos_token }}{% for m in messages %}<|h|>{{ m.role }}<|e|>\n\n{{ m.content | trim }}<|t|>"
      "{% endfor %}{% if add_generation_prompt %}<|h|>assistant<|e|>\n\n{% endif %}");
  ASSERT_TRUE(layout.ok()) << layout.status().ToString();
  EXPECT_EQ(layout->opening, "<s><|h|>user<|e|>\n\n");
  EXPECT_EQ(layout->before_preamble, "<s><|h|>system<|e|>\n\n");
  EXPECT_EQ(layout->after_preamble, "<|t|><|h|>user<|e|>\n\n");
  EXPECT_EQ(layout->before_question, "\n\n");
  EXPECT_EQ(layout->closing, "<|t|><|h|>assistant<|e|>\n\n");
  EXPECT_EQ(layout->turn_end, "<|t|>");
}

TEST(ChatLayout, ATemplateMayHaveItsOwnSystemText) {
  const auto layout = LayoutOf(
      "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}"
      "{% set messages = messages[1:] %}{% else %}{% set s = 'Help.' %}{% endif %}"
      "{% for m in messages %}[I]{% if loop.first %}<S>{{ s }}</S>{% endif %}{{ m.content }}[/I]"
      "{% endfor %}");
  ASSERT_TRUE(layout.ok()) << layout.status().ToString();
  EXPECT_EQ(layout->opening, "[I]<S>Help.</S>");
  EXPECT_EQ(layout->before_preamble, "[I]<S>");
  EXPECT_EQ(layout->after_preamble, "</S>");
  EXPECT_EQ(layout->closing, "[/I]");
}

// A template that refuses a system message, or prints none: the preamble opens the user's message.
TEST(ChatLayout, WithoutASystemRole) {
  for (const char* const other : {"{{ raise_exception('users only') }}", ""}) {
    const auto layout = LayoutOf(
        std::string("{% for m in messages %}{% if m.role == 'system' %}") + other +
        "{% elif m.role == 'user' %}<U>{{ m.content }}</U>{% else %}{{ m.content }}</s>{% endif %}"
        "{% endfor %}");
    ASSERT_TRUE(layout.ok()) << layout.status().ToString();
    EXPECT_EQ(layout->before_preamble, "<U>");
    EXPECT_EQ(layout->after_preamble, "\n\n");
    EXPECT_EQ(layout->turn_end, "</s>");
  }
}

TEST(ChatLayout, ContentsThatAreLists) {
  const auto layout = LayoutOf(
      "{% for m in messages %}{{ m.role }}:{% for p in m.content %}{{ p['text'] }}{% endfor %};"
      "{% endfor %}");
  ASSERT_TRUE(layout.ok()) << layout.status().ToString();
  EXPECT_EQ(layout->opening, "user:");
  EXPECT_EQ(layout->closing, ";");
}

TEST(ChatLayout, WhatChangesTheTextIsRefused) {
  for (const char* const print :
       {"{{ m.content | upper }}", "{{ m.content }}{{ m.content }}", "{{ m.role }}",
        "{{ m.content | replace('\\n', ' ') }}", "{{ m.content | tojson }}"}) {
    const auto layout = LayoutOf(std::string("{% for m in messages %}") + print + "{% endfor %}");
    ASSERT_FALSE(layout.ok()) << print;
    EXPECT_EQ(layout.status().code(), StatusCode::kUnimplemented) << print;
    EXPECT_NE(layout.status().message().find("model"), std::string::npos);
  }
  const auto broken = LayoutOf("{% for m in messages %}\n{{ m.content | shout }}{% endfor %}");
  ASSERT_FALSE(broken.ok());
  EXPECT_NE(broken.status().message().find("line 2: the filter 'shout'"), std::string::npos)
      << broken.status().message();
}

TEST(ReadFolderChat, TakesTheTemplateAndAllEndTokens) {
  const TempDir dir;
  dir.Write("tokenizer_config.json",
            R"({"chat_template": [{"name": "tools", "template": "T"},
                                  {"name": "default", "template": "D"}],
                "bos_token": {"content": "<s>"}, "eos_token": "</s>"})");
  dir.Write("config.json", R"({"eos_token_id": 9})");
  auto source = ReadFolderChat(dir.path());
  ASSERT_TRUE(source.ok()) << source.status().ToString();
  EXPECT_EQ(source->text, "D");
  EXPECT_EQ(source->bos_text, "<s>");
  EXPECT_EQ(source->eos_text, "</s>");
  EXPECT_EQ(source->end_tokens, std::vector<uint64_t>{9});
  EXPECT_FALSE(source->start_token);
  dir.Write("tokenizer_config.json", R"({"add_bos_token": true})");
  dir.Write("generation_config.json", R"({"eos_token_id": [1, 106], "bos_token_id": 2})");
  dir.Write("chat_template.jinja", "J");
  source = ReadFolderChat(dir.path());
  ASSERT_TRUE(source.ok());
  EXPECT_EQ(source->text, "J");
  EXPECT_EQ(source->end_tokens, (std::vector<uint64_t>{1, 106}));
  EXPECT_EQ(source->start_token, 2U);
}

}  // namespace
}  // namespace corpusd
