// What each launcher's environment means, and what is said when it is not one.
#include "dist/launch.h"

#include <cstdlib>
#include <map>

#include "core/error.h"
#include "dist/node_list.h"
#include "support/test_support.h"

namespace satin::dist {
namespace {

const std::vector<std::string> kNames = {"RANK",
                                         "WORLD_SIZE",
                                         "LOCAL_RANK",
                                         "LOCAL_WORLD_SIZE",
                                         "MASTER_ADDR",
                                         "MASTER_PORT",
                                         "SLURM_PROCID",
                                         "SLURM_NTASKS",
                                         "SLURM_LOCALID",
                                         "SLURM_JOB_NODELIST",
                                         "SLURM_JOB_ID",
                                         "SLURM_STEP_ID",
                                         "SLURM_STEP_NODELIST",
                                         "SLURM_STEP_NUM_NODES",
                                         "SLURM_NNODES",
                                         "ENVIRONMENT",
                                         "SATIN_LAUNCHER",
                                         "OMPI_COMM_WORLD_RANK",
                                         "OMPI_COMM_WORLD_SIZE",
                                         "OMPI_COMM_WORLD_LOCAL_RANK",
                                         "OMPI_COMM_WORLD_LOCAL_SIZE",
                                         "TORCHELASTIC_USE_AGENT_STORE",
                                         "TORCHELASTIC_RESTART_COUNT"};

using Environment = std::map<std::string, std::string>;

Launch detect(const Environment& environment) {
  for (const auto& name : kNames) unsetenv(name.c_str());
  for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
  const auto clean = [] {
    for (const auto& name : kNames) unsetenv(name.c_str());
  };
  try {
    Launch launch = detect_launch();
    clean();
    return launch;
  } catch (...) {
    clean();
    throw;
  }
}

void expect_refusal(const Environment& environment, const std::string& part) {
  try {
    detect(environment);
    ADD_FAILURE() << "accepted; expected: " << part;
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

Environment without(Environment environment, const std::string& name) {
  environment.erase(name);
  return environment;
}
Environment with(Environment environment, const std::string& name, const std::string& value) {
  environment[name] = value;
  return environment;
}

const Environment kTorchrun = {{"RANK", "5"},
                               {"WORLD_SIZE", "8"},
                               {"LOCAL_RANK", "1"},
                               {"LOCAL_WORLD_SIZE", "4"},
                               {"MASTER_ADDR", "n01"},
                               {"MASTER_PORT", "29400"},
                               {"TORCHELASTIC_RESTART_COUNT", "2"},
                               {"TORCHELASTIC_USE_AGENT_STORE", "True"}};
const Environment kSrun = {{"SLURM_PROCID", "3"},
                           {"SLURM_NTASKS", "4"},
                           {"SLURM_LOCALID", "1"},
                           {"SLURM_NNODES", "2"},
                           {"SLURM_JOB_NODELIST", "gpu[003-005,9],login"},
                           {"SLURM_JOB_ID", "123456"},
                           {"SLURM_STEP_ID", "7"}};
const Environment kMpirun = {{"OMPI_COMM_WORLD_RANK", "1"},
                             {"OMPI_COMM_WORLD_SIZE", "2"},
                             {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                             {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};

TEST(Launch, Alone) {
  const Launch launch = detect({});
  EXPECT_EQ(launch.size, 1);
  EXPECT_EQ(launch.launcher, "alone");
  EXPECT_EQ(detect({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).size, 1);
}

TEST(Launch, Torchrun) {
  Launch launch = detect(kTorchrun);
  EXPECT_EQ(launch.rank, 5);
  EXPECT_EQ(launch.size, 8);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.master_address, "n01");
  EXPECT_EQ(launch.master_port, 29400);
  EXPECT_TRUE(launch.store_is_served);
  EXPECT_FALSE(launch.one_host);
  EXPECT_EQ(launch.store_prefix, "satin/2");
  launch.host = "n02";
  EXPECT_EQ(launch.text(true), "rank 5 of 8 on n02 (torchrun), GPU 1");
  EXPECT_EQ(launch.text(false), "rank 5 of 8 on n02 (torchrun)");
  EXPECT_FALSE(detect(without(kTorchrun, "TORCHELASTIC_USE_AGENT_STORE")).store_is_served);
}

TEST(Launch, Srun) {
  const Launch launch = detect(kSrun);
  EXPECT_EQ(launch.launcher, "srun");
  EXPECT_EQ(launch.rank, 3);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.master_address, "gpu003");
  EXPECT_EQ(launch.master_port, 20000 + 123456 % 12000);
  EXPECT_FALSE(launch.one_host);
  EXPECT_TRUE(detect(with(kSrun, "SLURM_NNODES", "1")).one_host);
  EXPECT_EQ(detect(with(kSrun, "MASTER_ADDR", "other")).master_address, "other");
  // A batch script's own process is no task.
  EXPECT_EQ(detect(with(without(with(kSrun, "SLURM_PROCID", "0"), "SLURM_STEP_ID"), "ENVIRONMENT", "BATCH")).size, 1);
}

TEST(Launch, Mpirun) {
  const Launch launch = detect(kMpirun);
  EXPECT_EQ(launch.launcher, "mpirun");
  EXPECT_EQ(launch.rank, 1);
  EXPECT_TRUE(launch.one_host);
  EXPECT_EQ(launch.master_address, "127.0.0.1");
  const Environment two_hosts = with(with(kMpirun, "OMPI_COMM_WORLD_SIZE", "4"), "MASTER_ADDR", "n01");
  EXPECT_EQ(detect(two_hosts).master_address, "n01");
  expect_refusal(without(two_hosts, "MASTER_ADDR"), "MASTER_ADDR");
}

TEST(Launch, RefusesPartialAndContradictoryEnvironments) {
  for (const char* name : {"WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})
    expect_refusal(without(kTorchrun, name), cat(name, " is not"));
  for (const char* name : {"SLURM_NTASKS", "SLURM_LOCALID", "SLURM_JOB_NODELIST", "SLURM_JOB_ID"})
    expect_refusal(without(kSrun, name), cat(name, " is not"));
  expect_refusal(without(kMpirun, "OMPI_COMM_WORLD_SIZE"), "OMPI_COMM_WORLD_SIZE is not");
  expect_refusal(with(kTorchrun, "RANK", "8"), "RANK=8: expected less than WORLD_SIZE=8");
  expect_refusal(with(kTorchrun, "RANK", "-1"), "RANK: expected a number");
  expect_refusal(with(kTorchrun, "RANK", "1x"), "found '1x'");
  expect_refusal(with(kTorchrun, "WORLD_SIZE", "99999999999999999999"), "WORLD_SIZE: expected a number");
  expect_refusal(with(kTorchrun, "LOCAL_RANK", "4"), "contradict");
  expect_refusal(with(kTorchrun, "LOCAL_WORLD_SIZE", "9"), "contradict");
  expect_refusal(with(kTorchrun, "MASTER_PORT", "0"), "MASTER_PORT");
}

TEST(NodeList, FirstHost) {
  EXPECT_EQ(first_host("gpu[003-005,9],login"), "gpu003");
  EXPECT_EQ(first_host("gpu7"), "gpu7");
  EXPECT_EQ(first_host("a,b"), "a");
  EXPECT_EQ(first_host("rack[1-2]n[03,7]-ib,x"), "rack1n03-ib");
  EXPECT_EQ(first_host("n[9]"), "n9");
  for (const char* bad : {"", ",a", "gpu[", "gpu[]", "gpu[1", "gpu[-2]", "a b"})
    EXPECT_THROW(first_host(bad), UserError) << bad;
}

}  // namespace
}  // namespace satin::dist
