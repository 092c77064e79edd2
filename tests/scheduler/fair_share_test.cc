// Whose turn it is: the Virtual Token Counter by itself.

#include "scheduler/fair_share.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

// A request of the tenant comes and waits.
AccountId Come(FairShare& shares, absl::string_view tenant) {
  const AccountId account = shares.Open(tenant);
  shares.BeginWaiting(account, /*is_new=*/true);
  return account;
}

// The next request is admitted, runs at this cost and is over.
AccountId Serve(FairShare& shares, double cost) {
  const AccountId account = *shares.Next();
  shares.Charge(account, cost);
  shares.EndWaiting(account);
  shares.Close(account);
  return account;
}

TEST(FairShare, WhoeverWasServedLeastByWeightIsNext) {
  FairShare shares(10, {{"gold", 3}});
  for (int i = 0; i < 100; ++i) {
    Come(shares, "gold");
    Come(shares, "lead");
  }
  const AccountId gold = *shares.Find("gold");
  int num_gold = 0;
  for (int i = 0; i < 80; ++i) num_gold += Serve(shares, 7) == gold ? 1 : 0;
  EXPECT_EQ(num_gold, 60);
}

TEST(FairShare, AnIdleTenantBuildsNoCredit) {
  FairShare shares(10, {});
  for (int i = 0; i < 50; ++i) Come(shares, "busy");
  for (int i = 0; i < 40; ++i) Serve(shares, 100);
  const AccountId late = Come(shares, "late");
  EXPECT_EQ(shares.counter(late), shares.counter(*shares.Find("busy")));
  // Also when nobody waits any more.
  while (shares.Next()) Serve(shares, 100);
  const AccountId last = Come(shares, "last");
  EXPECT_GE(shares.counter(last), 40 * 100);
}

TEST(FairShare, ADebtOutlastsAPause) {
  FairShare shares(10, {});
  const AccountId greedy = Come(shares, "greedy");
  const AccountId modest = Come(shares, "modest");
  Serve(shares, 1000);
  EXPECT_EQ(*shares.Next(), modest);
  EXPECT_EQ(Come(shares, "greedy"), greedy);
  EXPECT_EQ(shares.counter(greedy), 1000);
  for (int i = 0; i < 9; ++i) {
    Come(shares, "modest");
    EXPECT_EQ(Serve(shares, 100), modest);
  }
}

TEST(FairShare, AccountsAreBoundedAndTheRestShareOne) {
  FairShare shares(3, {});
  const AccountId a = Come(shares, "a"), b = Come(shares, "b"), c = Come(shares, "c");
  const AccountId d = Come(shares, "d"), e = Come(shares, "e");
  EXPECT_EQ(d, e);
  EXPECT_TRUE(a != b && b != c && c != d && a != c);
  for (int i = 0; i < 5; ++i) Serve(shares, 1);
  for (int i = 0; i < 1000; ++i) {
    Come(shares, absl::StrCat("tenant ", i));
    Serve(shares, 1);
  }
  EXPECT_LE(shares.num_accounts(), 4);
}

}  // namespace
}  // namespace quire
