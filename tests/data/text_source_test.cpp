#include "data/text_source.h"

#include <functional>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/record_template.h"
#include "support/test_support.h"

namespace satin::data {
namespace {
using test::TempDir;

class TextSourceTest : public testing::Test {
 protected:
  config::DataSource write(const std::string& name, const std::string& bytes) {
    test::write_file(dir_ / name, bytes);
    config::DataSource source;
    source.path = (dir_ / name).string();
    return source;
  }
  static std::vector<std::string> texts(const config::DataSource& source) {
    std::vector<std::string> out;
    TextSource text(source);
    for (Document document; text.next(document);) out.push_back(document.text);
    return out;
  }
  static std::string error_of(const config::DataSource& source) {
    try {
      texts(source);
    } catch (const UserError& error) {
      return error.what();
    }
    return "no error";
  }
  static void expect_error(const config::DataSource& source, const std::vector<std::string>& parts) {
    const std::string message = error_of(source);
    for (const std::string& part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << part << " not in: " << message;
  }
  TempDir dir_;
};
using Texts = std::vector<std::string>;

TEST_F(TextSourceTest, ReadsAField) {
  auto source = write(
      "a.jsonl",
      "\xEF\xBB\xBF{\"text\": \"one\\n\\u00e9\", \"n\": 1}\r\n\n   \n{\"n\": 2, \"text\": \"\"}\n{\"text\": \"last\"}");
  EXPECT_EQ(texts(source), (Texts{"one\n\u00e9", "", "last"}));
  source.field = "n";
  expect_error(source, {"a.jsonl:1", "\"n\"", "expected text, found number"});
}

TEST_F(TextSourceTest, ATextFileIsOneDocument) {
  EXPECT_EQ(texts(write("a.txt", "one\n\ntwo\n")), Texts{"one\n\ntwo\n"});
  EXPECT_EQ(texts(write("crlf.txt", "\r\none\r\n\r\ntwo\rthree\r")), Texts{"\none\n\ntwo\nthree\n"});
  EXPECT_EQ(texts(write("b.TXT", "\xEF\xBB\xBFx")), Texts{"x"});
  auto source = write("c.txt", "x");
  source.template_ = "{x}";
  expect_error(source, {"c.txt", "one document"});
}

TEST_F(TextSourceTest, FillsATemplate) {
  auto source = write("a.jsonl", "{\"question\": \"1+1?\", \"answer\": \"{2}\", \"year\": 1623}\n");
  source.template_ = "Question: {question}\nAnswer: {answer}";
  EXPECT_EQ(texts(source), Texts{"Question: 1+1?\nAnswer: {2}"});
  source.template_ = R"({{{year}}}\t{question}\n\\n)";
  EXPECT_EQ(texts(source), Texts{"{1623}\t1+1?\n\\n"});
  source.template_ = "{anser}";
  expect_error(source, {"a.jsonl:1", "no field \"anser\"", "did you mean", "answer"});
}

TEST(RecordTemplate, RefusesWhatItCannotFill) {
  for (const char* wrong : {"{", "}", "a {b", "a b}", "{}", "{a{b}}", "plain", "", "{{a}}"})
    EXPECT_THROW(RecordTemplate(wrong, "here"), UserError) << wrong;
  try {
    RecordTemplate("ab {c", "here");
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("here: template \"ab {c\", character 4"), std::string::npos)
        << error.what();
  }
}

TEST_F(TextSourceTest, ReadsMessages) {
  auto source =
      write("a.jsonl", R"({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"},)"
                       R"( {"role": "assistant", "content": "A\nB"}, {"role": "user", "content": "R"}]})");
  source.format = "messages";
  TextSource text(source);
  Document document;
  ASSERT_TRUE(text.next(document));
  EXPECT_EQ(document.text, "<|system|>\nS\n<|user|>\nQ\n<|assistant|>\nA\nB\n<|user|>\nR\n");
  EXPECT_TRUE(document.masked);
  ASSERT_EQ(document.answers.size(), 1u);
  EXPECT_EQ(document.text.substr(document.answers[0].first, document.answers[0].second - document.answers[0].first),
            "A\nB\n");
  EXPECT_EQ(text.roles(), (std::set<std::string>{"assistant", "system", "user"}));
  source.template_ = "[{role}] {content};";
  EXPECT_EQ(texts(source), Texts{"[system] S;[user] Q;[assistant] A\nB;[user] R;"});
  source.template_ = "{role}";
  expect_error(source, {"needs {content} once"});
  source.template_ = "{content}{name}";
  expect_error(source, {"takes {role} and {content}, found {name}"});
}

TEST_F(TextSourceTest, BadMessagesNameTheirPlace) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> cases = {
      {R"({"messages": "hello"})", {":2", "list of {role, content}, found string"}},
      {R"({"messages": ["hello"]})", {":2", "message 0", "found string"}},
      {R"({"messages": [{"role": "user", "content": "x"}, {"rol": "user", "content": "x"}]})",
       {":2", "message 1 has no field \"role\"", "did you mean"}},
      {R"({"messages": [{"role": "user", "content": null}]})", {":2", "\"content\": expected text, found null"}},
      {R"({"mesages": []})", {":2", "no field \"messages\"", "did you mean", "mesages"}}};
  for (const auto& [line, parts] : cases) {
    auto source = write("a.jsonl", "{\"messages\": []}\n" + line);
    source.format = "messages";
    expect_error(source, parts);
  }
}

TEST_F(TextSourceTest, BadInputNamesItsPlace) {
  expect_error(write("a.jsonl", "{\"text\": \"x\"}\n{\"text\": \"x\"\n"), {"a.jsonl:2", "not valid JSON", "column"});
  expect_error(write("a.jsonl", "{\"text\": \"x\"}\n[1]\n"), {"a.jsonl:2", "expected a JSON object", "array"});
  expect_error(write("a.jsonl", "{\"txet\": \"x\", \"b\": 1}\n"),
               {"a.jsonl:1", "no field \"text\"", "b, txet", "did you mean"});
  expect_error(write("a.jsonl", "{}\n"), {"a.jsonl:1", "it has none"});
  expect_error(write("a.jsonl", "{\"text\": [\"x\"]}\n"), {"a.jsonl:1", "expected text, found array"});
  expect_error(write("a.jsonl", std::string("{\"text\": \"x\"}\nab\0c", 19)), {"a.jsonl:2", "NUL byte at byte 3"});
  expect_error(write("a.txt", std::string("\x7f"
                                          "ELF\0",
                                          5)),
               {"a.txt", "NUL byte at byte 5"});
  expect_error(write("a.txt", ""), {"a.txt", "empty"});
  expect_error(write("a.jsonl", ""), {"a.jsonl", "empty"});
  expect_error(write("a.jsonl", std::string(100000, '[')), {"a.jsonl:1", "not valid JSON"});
  expect_error(write("a.jsonl.xz", "x"), {".jsonl", "decompress"});
  expect_error(write("a.parquet", "x"), {".jsonl", "convert"});
  auto source = write("a.jsonl", "{}\n");
  source.path += "absent.jsonl";
  expect_error(source, {"absent.jsonl", "No such file"});
  source.path = dir_.path().string() + "/folder.jsonl";
  std::filesystem::create_directory(source.path);
  expect_error(source, {"folder.jsonl", "directory"});
}

TEST_F(TextSourceTest, InvalidUtf8BecomesWhatPythonMakesIt) {
  // Truncated sequences, surrogates, overlong forms, beyond U+10FFFF, stray continuations: a line each.
  const std::vector<std::string> bad = {
      "a\xFFz",     "\xC3",         "\xE2\x82z",        "\xF0\x9F\x98z", "\xED\xA0\x80",
      "\xC0\xAF",   "\xE0\x80\x80", "\xF4\x90\x80\x80", "\x80\x80",      "\xF8\x88\x80\x80\x80",
      "ok \xC3\xA9"};
  std::string lines;
  for (const std::string& text : bad) lines += "{\"text\": \"" + text + "\"}\n";
  const auto source = write("a.jsonl", lines);
  const auto python = test::run_python("data/replace_utf8.py " + source.path);
  ASSERT_EQ(python.exit_code, 0) << python.output;
  EXPECT_EQ(nlohmann::json(texts(source)), nlohmann::json::parse(python.output));
  TextSource text(source);
  for (Document document; text.next(document);) {
  }
  EXPECT_EQ(text.num_replaced_lines(), bad.size() - 1);
}

}  // namespace
}  // namespace satin::data
