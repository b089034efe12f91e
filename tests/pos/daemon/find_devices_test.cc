// Which devices posd offers, and why, by the driver that it finds. The driver
// is a stand-in (device_cuda/lone_driver.cc).
#include "pos/daemon/find_devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace pos {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FindDevicesTest : public ::testing::Test {
 protected:
  FindDevicesTest() { Driver("sound"); }
  ~FindDevicesTest() override { ::unsetenv("POS_LONE_DRIVER"); }
  // In the environment, which the probe inherits.
  static void Driver(const char* is) { ::setenv("POS_LONE_DRIVER", is, 1); }
  static Result<FoundDevices> Find(
      const std::string& devices,
      const std::string& library = POS_LONE_DRIVER_FILE) {
    const auto config = conf::Config::Parse(
        "devices: " + devices + "\ncuda:\n  driver_library: " + library +
            "\n  reserve: 1GiB\nsim:\n  count: 2\n",
        "posd.yaml", {});
    if (!config.ok()) return config.status();
    return FindDevices(*config, POS_PROGRAM_DIR);
  }
  static std::vector<std::string> Kinds(const FoundDevices& found) {
    std::vector<std::string> kinds;
    for (const NodeDevice& device : found.devices) kinds.push_back(device.kind);
    return kinds;
  }
  // Under `auto` the simulated device stands in, and the reason is told; where
  // cuda is asked for, posd does not start, for the same reason.
  static void ExpectSimulated(
      const std::string& why,
      const std::string& library = POS_LONE_DRIVER_FILE) {
    SCOPED_TRACE(why);
    const auto found = Find("auto", library);
    ASSERT_TRUE(found.ok()) << found.status().ToString();
    EXPECT_THAT(Kinds(*found), ElementsAre("sim", "sim"));
    EXPECT_THAT(found->why, HasSubstr("simulated: "));
    EXPECT_THAT(found->why, HasSubstr(why));
    for (const char* devices : {"cuda", "[cuda, sim]"}) {
      const auto refused = Find(devices, library);
      ASSERT_FALSE(refused.ok()) << devices;
      EXPECT_THAT(refused.status().message() + refused.status().hint(),
                  HasSubstr(why));
    }
  }
};

TEST_F(FindDevicesTest, DriverWithDevicesIsUsed) {
  const auto found = Find("auto");
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  EXPECT_THAT(Kinds(*found), ElementsAre("cuda", "cuda"));
  EXPECT_EQ(found->why, "the host has a CUDA driver with devices");
  const NodeDevice& second = found->devices[1];
  EXPECT_EQ(second.name, "Stand-in 1");
  EXPECT_EQ(second.ordinal, 1);
  EXPECT_EQ(second.driver_ordinal, 1);
  EXPECT_EQ(second.memory_bytes, 15ull << 30);  // less the reserve
  EXPECT_EQ(second.compute_capability, 80u);
  EXPECT_EQ(second.multiprocessors, 108u);
}

TEST_F(FindDevicesTest, BothAtOnceWhereBothAreAskedFor) {
  const auto found = Find("[cuda, sim]");
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  EXPECT_THAT(Kinds(*found), ElementsAre("cuda", "cuda", "sim", "sim"));
  EXPECT_EQ(found->devices[3].ordinal, 3);
  EXPECT_EQ(found->why, "as configured");
}

TEST_F(FindDevicesTest, SimulatedAloneDoesNotAskTheDriver) {
  Driver("crashes");
  const auto found = Find("sim");
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  EXPECT_THAT(Kinds(*found), ElementsAre("sim", "sim"));
  EXPECT_EQ(found->why, "as configured");
}

TEST_F(FindDevicesTest, NoDriver) {
  ExpectSimulated("/no/such/libcuda.so.1", "/no/such/libcuda.so.1");
}

TEST_F(FindDevicesTest, DriverWithoutDevices) {
  Driver("empty");
  ExpectSimulated("the CUDA driver has no device");
}

TEST_F(FindDevicesTest, DriverThatIsTooOld) {
  Driver("old");
  ExpectSimulated("is a driver of CUDA 11.2");
  ExpectSimulated("POS needs one of CUDA 12.8 or later");
}

TEST_F(FindDevicesTest, DriverThatLacksAFunction) {
  Driver("lacks");
  ExpectSimulated("has no cuMemAddressReserve of CUDA 10.2");
}

TEST_F(FindDevicesTest, DriverThatDoesNotStart) {
  Driver("refuses");
  ExpectSimulated("cuInit: CUDA_ERROR_OF_THE_STAND_IN");
}

TEST_F(FindDevicesTest, DriverThatEndsItsProcess) {
  Driver("crashes");
  ExpectSimulated("the CUDA driver ended its process by signal 6");
}

}  // namespace
}  // namespace pos
