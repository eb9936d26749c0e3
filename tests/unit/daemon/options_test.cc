#include "daemon/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "daemon/config_check.h"

namespace corpusd {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct World {
  std::map<std::string, std::string> variables;

  Result<LoadedOptions> Load(const std::vector<std::string>& arguments) const {
    std::vector<std::string> names;
    for (const auto& [name, value] : variables) names.push_back(name);
    const auto environment = [this](const char* name) -> const char* {
      const auto entry = variables.find(name);
      return entry == variables.end() ? nullptr : entry->second.c_str();
    };
    return LoadOptions(arguments, environment, names);
  }
};

std::string WriteToml(const std::string& text) {
  const std::string path = ::testing::TempDir() + "corpusd-options-test.toml";
  std::ofstream(path) << text;
  return path;
}

TEST(Options, DefaultsFollowTheContract) {
  const auto loaded = World().Load({"--model", "m.gguf"});
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  EXPECT_EQ(loaded->options.data_dir, "/var/lib/corpusd");
  EXPECT_EQ(loaded->options.socket_path, "/run/corpusd/corpusd.sock");
  EXPECT_EQ(loaded->options.host_bytes, uint64_t{4} << 30);
  EXPECT_EQ(loaded->options.frame_bytes_max, size_t{16} << 20);
  EXPECT_EQ(loaded->options.socket_mode, 0660u);
  EXPECT_EQ(loaded->options.grace, std::chrono::seconds(10));
}

TEST(Options, XdgFoldersAreUsed) {
  const World world{{{"XDG_STATE_HOME", "/s"}, {"XDG_RUNTIME_DIR", "/r"}}};
  const auto loaded = world.Load({"--model", "m.gguf"});
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(loaded->options.data_dir, "/s/corpusd");
  EXPECT_EQ(loaded->options.socket_path, "/r/corpusd/corpusd.sock");
}

TEST(Options, FlagBeatsVariableBeatsFileBeatsDefault) {
  const std::string file = WriteToml("model = \"file\"\nthreads = 3\nmax_queries = 5\n");
  World world{{{"CORPUSD_MODEL", "variable"}, {"CORPUSD_MAX_QUERIES", "6"}}};
  const auto loaded = world.Load({"--config", file, "--model=flag"});
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  EXPECT_EQ(loaded->options.model_path, "flag");
  EXPECT_EQ(loaded->options.queries_max, 6u);
  EXPECT_EQ(loaded->options.threads, 3u);
}

TEST(Options, UnknownNamesGetTheNearest) {
  const auto flag = World().Load({"--host-byte", "1GiB"});
  ASSERT_FALSE(flag.ok());
  EXPECT_THAT(flag.status().message(), HasSubstr("did you mean --host-bytes?"));
  const auto key = World().Load({"--config", WriteToml("hots_bytes = \"1GiB\"\n")});
  ASSERT_FALSE(key.ok());
  EXPECT_THAT(key.status().message(), HasSubstr("did you mean 'host_bytes'?"));
  const auto variable = World{{{"CORPUSD_DATADIR", "/x"}}}.Load({"--model", "m"});
  ASSERT_FALSE(variable.ok());
  EXPECT_THAT(variable.status().message(), HasSubstr("did you mean CORPUSD_DATA_DIR?"));
  EXPECT_TRUE((World{{{"CORPUSD_TEST_MODEL", "/x"}}}.Load({"--model", "m"}).ok()));
}

TEST(Options, WrongValuesNameKeyValueAndOrigin) {
  const std::vector<std::vector<std::string>> wrong = {
      {"--host-bytes", "many"}, {"--threads", "-1"},           {"--socket-mode", "9"},
      {"--log-format", "xml"},  {"--device", "gpu"},           {"--device-bytes", "1GiB"},
      {"--http", "8040"},       {"--max-queries", "0"},        {"--max-frame-bytes", "1KiB"},
      {"--grace", "soon"},      {"--max-frame-bytes", "2TiB"}, {"--ranks", "0"},
      {"--rank", "1"},          {"--rank-timeout", "0"}};
  for (const std::vector<std::string>& arguments : wrong) {
    std::vector<std::string> all = arguments;
    all.insert(all.end(), {"--model", "m"});
    const auto loaded = World().Load(all);
    ASSERT_FALSE(loaded.ok()) << arguments[0];
    EXPECT_EQ(loaded.status().code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(loaded.status().message(), HasSubstr("'" + arguments[1] + "'"));
    EXPECT_THAT(loaded.status().message(), HasSubstr("flag " + arguments[0]));
  }
}

TEST(Options, RanksAreDevicesThreadsOrProcesses) {
  const auto devices = [](const std::vector<std::string>& arguments) {
    std::vector<std::string> all = {"--model", "m"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const auto loaded = World().Load(all);
    EXPECT_TRUE(loaded.ok()) << loaded.status().ToString();
    return RankDevices(loaded->options);
  };
  using List = std::vector<std::string>;
  EXPECT_EQ(devices({}), List{"auto"});
  EXPECT_EQ(devices({"--device", "cuda:3"}), List{"cuda:3"});
  EXPECT_EQ(devices({"--device", "cuda:0,1"}), (List{"cuda:0", "cuda:1"}));
  EXPECT_EQ(devices({"--ranks", "3"}), (List{"cpu", "cpu", "cpu"}));
  EXPECT_EQ(devices({"--tensor-parallel", "2"}), (List{"cpu", "cpu"}));
  EXPECT_EQ(devices({"--tensor-parallel", "2", "--ranks", "4"}),
            (List{"cpu", "cpu", "cpu", "cpu"}));
  EXPECT_EQ(devices({"--rank-file", "f", "--rank", "2"}), List{"auto"});
  EXPECT_FALSE(World().Load({"--model", "m", "--device", "cuda:0", "--ranks", "2"}).ok());
  EXPECT_FALSE(World().Load({"--model", "m", "--rank-file", "f", "--ranks", "2"}).ok());
  EXPECT_THAT(
      World().Load({"--model", "m", "--tensor-parallel", "2", "--ranks", "3"}).status().message(),
      HasSubstr("must divide the number of ranks, 3"));
  EXPECT_EQ(devices({"--tensor-parallel", "2", "--device", "cuda:0,1"}),
            (List{"cuda:0", "cuda:1"}));
  for (const char* const device : {"cuda:0", "cuda:0,1,2"}) {
    EXPECT_THAT(World()
                    .Load({"--model", "m", "--tensor-parallel", "2", "--device", device})
                    .status()
                    .message(),
                HasSubstr("takes as many CUDA devices of one process"))
        << device;
  }
  // A grid in one process, and one whose every line of a rank file has two devices.
  EXPECT_EQ(devices({"--tensor-parallel", "2", "--device", "cuda:0,1,2,3"}),
            (List{"cuda:0", "cuda:1", "cuda:2", "cuda:3"}));
  const std::vector<std::string> file = {"--model", "m", "--rank-file", "f", "--tensor-parallel"};
  const auto with = [&](const std::string& count, const std::string& device) {
    std::vector<std::string> all = file;
    all.insert(all.end(), {count, "--device", device});
    return World().Load(all);
  };
  const auto pairs = with("2", "cuda:2,3");
  ASSERT_TRUE(pairs.ok()) << pairs.status().ToString();
  EXPECT_EQ(RankFileStride(pairs->options), 1u);
  EXPECT_EQ(RankDevices(pairs->options), (List{"cuda:2", "cuda:3"}));
  const auto cpus = with("2", "cpu");
  ASSERT_TRUE(cpus.ok()) << cpus.status().ToString();
  EXPECT_EQ(RankFileStride(cpus->options), 2u);
  EXPECT_FALSE(with("2", "cuda:0,1,2,3").ok());
  EXPECT_THAT(with("1", "cuda:0,1").status().message(), HasSubstr("do not share the weights"));
}

TEST(Options, ModelIsRequiredToRunOnly) {
  EXPECT_THAT(World().Load({}).status().message(), HasSubstr("--model"));
  EXPECT_TRUE(World().Load({"--check-config"}).ok());
}

TEST(Options, BrokenTomlNamesFileAndLine) {
  const auto loaded = World().Load({"--config", WriteToml("model = \"m\"\nthreads = = 3\n")});
  ASSERT_FALSE(loaded.ok());
  EXPECT_THAT(loaded.status().message(), HasSubstr("line 2"));
  EXPECT_FALSE(World().Load({"--config", "/nonexistent.toml"}).ok());
  EXPECT_FALSE(World().Load({"--config", WriteToml("[store]\nmodel = \"m\"\n")}).ok());
  EXPECT_FALSE(World().Load({"--config", WriteToml("[pins.more]\nmodel = \"m\"\n")}).ok());
}

TEST(Options, CheckConfigPrintsTomlThatReadsBack) {
  const auto printed = World().Load({"--model", "a \"b\" \\c", "--check-config"});
  ASSERT_TRUE(printed.ok());
  EXPECT_THAT(printed->output, HasSubstr("# flag --model"));
  const auto back = World().Load({"--config", WriteToml(printed->output)});
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  EXPECT_EQ(back->options.model_path, "a \"b\" \\c");
}

TEST(Options, CheckConfigTellsAllThatIsWrongWithItsLine) {
  const std::string file = WriteToml(
      "model = \"m\"\nthreads = \"many\"\nhots_bytes = \"1GiB\"\n\n[pins]\nowner_bytes = \"x\"\n");
  for (const std::vector<std::string>& check :
       {std::vector<std::string>{"--check-config"}, std::vector<std::string>{"config", "check"}}) {
    std::vector<std::string> arguments = check;
    arguments.insert(arguments.end(), {"--config", file, "--grace", "soon"});
    const auto checked = World{{{"CORPUSD_DATADIR", "/x"}}}.Load(arguments);
    ASSERT_TRUE(checked.ok()) << checked.status().ToString();
    EXPECT_EQ(checked->action, CommandLine::Action::kCheckConfig);
    EXPECT_THAT(checked->problems,
                ElementsAre(HasSubstr("CORPUSD_DATADIR"), HasSubstr("'hots_bytes' in line 3 of"),
                            AllOf(HasSubstr("threads = 'many'"), HasSubstr(", line 2)")),
                            HasSubstr("flag --grace"),
                            AllOf(HasSubstr("pins.owner_bytes"), HasSubstr(", line 6)"))));
    EXPECT_THAT(checked->output, HasSubstr("model = \"m\"  # file " + file + ", line 1\n"));
  }
  EXPECT_TRUE(World().Load({"config", "check"})->problems.empty());
  EXPECT_FALSE(World().Load({"config"}).ok());
  EXPECT_FALSE(World().Load({"config", "check", "more"}).ok());
}

TEST(Options, FilesThatAreNamedMustBeThere) {
  Options options;
  options.disk_bytes = uint64_t{1} << 30;
  options.disk_high_percent = 95;
  EXPECT_TRUE(CheckNamedFiles(options).empty());
  options.model_path = "/nonexistent.gguf";
  options.http_source_roots = {"/", "/nonexistent"};
  options.access_path = WriteToml(
      "others = \"king\"\n[users]\nnobody-of-this-name = \"reader\"\n"
      "\"uid:1\" = \"reader:acme\"\n[tenants]\nglobex = \"2GiB\"\n");
  EXPECT_THAT(CheckNamedFiles(options),
              ElementsAre(HasSubstr("model = '/nonexistent.gguf'"), HasSubstr("'/nonexistent'"),
                          HasSubstr("'others' in line 1 of"),
                          AllOf(HasSubstr("in line 3 of"), HasSubstr("is no user here")),
                          AllOf(HasSubstr("in line 4 of"), HasSubstr("tenant 'acme'")),
                          HasSubstr("promised")));
}

TEST(Options, PricesAreNumbersFromNothingOn) {
  auto loaded = World().Load({"--model", "m"});
  EXPECT_EQ(loaded->options.price_cpu_hour, 0);
  EXPECT_EQ(loaded->options.price_currency, "USD");
  EXPECT_EQ(loaded->options.rag_tokens, 1024u);
  loaded = World().Load({"--model", "m", "--prices-gpu-hour", "2.49", "--config",
                         WriteToml("[prices]\ncpu_hour = \"0.03\"\n")});
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  EXPECT_EQ(loaded->options.price_gpu_hour, 2.49);
  EXPECT_EQ(loaded->options.price_cpu_hour, 0.03);
  for (const char* wrong : {"-1", "nan", "inf", "free", "1 USD", ""}) {
    EXPECT_FALSE(World().Load({"--model", "m", "--prices-gb-month", wrong}).ok()) << wrong;
  }
}

TEST(Options, PinQuotasComeFromTheirTableVariableOrFlag) {
  const std::string file = WriteToml("[pins]\nowner_bytes = \"1GiB\"\ntotal_bytes = \"2GiB\"\n");
  World world{{{"CORPUSD_PINS_TOTAL_BYTES", "3GiB"}}};
  auto loaded = world.Load({"--config", file, "--model", "m"});
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  EXPECT_EQ(loaded->options.pins_owner_bytes, uint64_t{1} << 30);
  EXPECT_EQ(loaded->options.pins_total_bytes, uint64_t{3} << 30);
  loaded = world.Load({"--config", file, "--model", "m", "--pins-owner-bytes", "5MiB"});
  EXPECT_EQ(loaded->options.pins_owner_bytes, uint64_t{5} << 20);
  const auto printed = world.Load({"--config", file, "--check-config"});
  EXPECT_THAT(printed->output, HasSubstr("pins.owner_bytes = \"1GiB\"  # file "));
  EXPECT_TRUE(World().Load({"--config", WriteToml(printed->output), "--model", "m"}).ok());
  const auto wrong = World().Load({"--config", WriteToml("[pins]\nowner_byte = \"1GiB\"\n")});
  EXPECT_THAT(wrong.status().message(), HasSubstr("did you mean 'pins.owner_bytes'?"));
}

TEST(Options, HelpNamesEveryFlagAndVariable) {
  const auto help = World().Load({"--help"});
  ASSERT_TRUE(help.ok());
  EXPECT_EQ(help->action, CommandLine::Action::kPrint);
  for (const OptionSpec& spec : OptionTable()) {
    EXPECT_THAT(help->output, HasSubstr("--" + std::string(spec.flag)));
    EXPECT_THAT(help->output, HasSubstr(spec.Variable()));
  }
  EXPECT_EQ(World().Load({"--version"})->output.rfind("corpusd ", 0), 0u);
}

TEST(Options, SampleConfigurationIsUpToDate) {
  std::ifstream file("deploy/corpusd.toml");  // tests run in the source folder
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  EXPECT_EQ(text, RenderSampleConfig());
}

TEST(Options, HttpListensOnLoopbackAndUnixSockets) {
  const auto loaded =
      World().Load({"--model", "m", "--http", "127.0.0.1:8040,unix:/run/h,[::1]:0,localhost:1,fd:h",
                    "--http-source-roots", "/srv/a,/srv/b"});
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  std::string texts;
  for (const HttpAddress& address : loaded->options.http) texts += HttpAddressText(address) + " ";
  EXPECT_EQ(texts, "127.0.0.1:8040 unix:/run/h [::1]:0 127.0.0.1:1 fd:h ");
  EXPECT_EQ(loaded->options.http_source_roots.size(), 2u);
  EXPECT_TRUE(World().Load({"--model", "m"})->options.http.empty());
  for (const char* wrong :
       {"0.0.0.0:80", "10.0.0.1:80", "example.org:80", "[::]:80", "unix:", "fd:", "", "127.0.0.1",
        "127.0.0.1:65536", "127.0.0.1:80,", "off,127.0.0.1:80"}) {
    EXPECT_FALSE(World().Load({"--model", "m", "--http", wrong}).ok()) << wrong;
  }
  EXPECT_FALSE(World().Load({"--model", "m", "--http-source-roots", "srv"}).ok());
}

TEST(Options, EditDistance) {
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3u);
  EXPECT_EQ(EditDistance("", "abc"), 3u);
  EXPECT_EQ(EditDistance("same", "same"), 0u);
}

}  // namespace
}  // namespace corpusd
