#include "pos/device/output_fifo.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace pos {
namespace {

constexpr auto kOut = OutputKind::kPrinted;
constexpr auto kErr = OutputKind::kFailed;

// What Take gives, pieces after each other, as "o:text" and "e:text".
std::string TakeAll(OutputFifo* fifo, std::size_t room = 1 << 16) {
  std::string text;
  std::vector<std::byte> out(room);
  std::uint64_t left = 0;
  do {
    const std::size_t bytes = fifo->Take(out, &left);
    EXPECT_LE(bytes, room);
    for (std::size_t at = 0; at < bytes;) {
      OutputFifo::Piece piece;
      std::memcpy(&piece, out.data() + at, sizeof(piece));
      at += sizeof(piece);
      text += piece.kind == static_cast<std::uint32_t>(kErr) ? "e:" : "o:";
      text.append(reinterpret_cast<const char*>(out.data()) + at, piece.bytes);
      at += piece.bytes;
    }
    if (bytes == 0) break;
  } while (left != 0);
  return text;
}

TEST(OutputFifo, GivesTextInTheOrderOfAllContexts) {
  OutputFifo fifo;
  fifo.Append(7, kOut, "one ");
  fifo.Append(9, kOut, "two ");
  fifo.Append(7, kErr, "three ");
  fifo.Append(8, kOut, "four");
  EXPECT_EQ(TakeAll(&fifo), "o:one o:two e:three o:four");
  EXPECT_EQ(TakeAll(&fifo), "");
}

// Rooms down to one byte of text: parts, without a loss.
TEST(OutputFifo, LongTextComesInParts) {
  for (const std::size_t room : {9u, 10u, 11u, 17u, 100u}) {
    SCOPED_TRACE(room);
    OutputFifo fifo;
    fifo.Append(1, kOut, "abcdefgh");
    fifo.Append(1, kOut, "ijkl");
    std::string text = TakeAll(&fifo, room);
    for (std::size_t at = 0; (at = text.find("o:")) != std::string::npos;) {
      text.erase(at, 2);
    }
    EXPECT_EQ(text, "abcdefghijkl");
  }
  OutputFifo fifo;
  fifo.Append(1, kOut, "x");
  std::array<std::byte, 8> none;
  std::uint64_t left = 0;
  EXPECT_EQ(fifo.Take(none, &left), 0u) << "no room for text";
  EXPECT_EQ(left, 1u);
}

TEST(OutputFifo, TheOldestTextGoesWhenItIsFull) {
  constexpr std::uint64_t kOne = 4 + OutputFifo::kPieceOverhead;
  for (std::uint64_t fits = 1; fits <= 5; ++fits) {
    SCOPED_TRACE(fits);
    OutputFifo fifo;
    fifo.SetCapacity(1, fits * kOne);
    fifo.Append(2, kOut, "other");
    std::string want = "o:other";
    for (int i = 0; i < 8; ++i) {
      const std::string text = "<" + std::to_string(10 + i) + ">";
      fifo.Append(1, kOut, text);
      if (static_cast<std::uint64_t>(8 - i) <= fits) want += "o:" + text;
    }
    EXPECT_EQ(TakeAll(&fifo), want) << "another context's text stays";
  }
}

TEST(OutputFifo, TextLargerThanTheCapacityIsLostAlone) {
  OutputFifo fifo;
  fifo.SetCapacity(1, 100);
  fifo.Append(1, kOut, "short");
  fifo.Append(1, kOut, std::string(100, 'x'));
  EXPECT_EQ(TakeAll(&fifo), "o:short");
  fifo.Append(1, kOut, std::string(84, 'y'));
  EXPECT_EQ(TakeAll(&fifo), "o:" + std::string(84, 'y')) << "just fits";
}

TEST(OutputFifo, ManyContextsStayBelowTheTotal) {
  OutputFifo fifo;
  const std::string text(1 << 16, 't');
  const std::uint64_t contexts = 8;
  for (std::uint64_t c = 0; c < contexts; ++c) {
    fifo.SetCapacity(c, ~std::uint64_t{0});
  }
  for (int i = 0; i < 300; ++i) {
    for (std::uint64_t c = 0; c < contexts; ++c) fifo.Append(c, kOut, text);
  }
  std::uint64_t left = 0;
  fifo.Take({}, &left);
  EXPECT_LE(left, OutputFifo::kTotalBytes);
  EXPECT_GT(left, OutputFifo::kTotalBytes - 2 * text.size());
}

TEST(OutputFifo, TellsWhenThereIsTextAndWhenThereIsNone) {
  OutputFifo fifo;
  std::vector<bool> told;
  fifo.SetReady([&](bool ready) { told.push_back(ready); });
  fifo.Append(1, kOut, "");
  EXPECT_TRUE(told.empty()) << "nothing was printed";
  fifo.Append(1, kOut, "a");
  fifo.Append(2, kOut, "b");
  EXPECT_EQ(told, std::vector<bool>{true});
  TakeAll(&fifo);
  EXPECT_EQ(told, (std::vector<bool>{true, false}));
  fifo.Append(1, kOut, "c");
  fifo.SetCapacity(1, 0);
  EXPECT_EQ(told, (std::vector<bool>{true, false, true, false}));
}

TEST(OutputFifo, WhatAClosedContextPrintedCanStillBeTaken) {
  OutputFifo fifo;
  fifo.SetCapacity(3, 40);
  fifo.Append(3, kOut, "last words");
  fifo.Close(3);
  fifo.Close(4);
  EXPECT_EQ(TakeAll(&fifo), "o:last words");
}

// A cut between two Takes: each byte comes out once, on one side.
TEST(OutputFifo, SavedTextIsWhatNobodyTook) {
  OutputFifo fifo;
  fifo.SetCapacity(5, 1000);
  fifo.Append(5, kOut, "taken before ");
  TakeAll(&fifo);
  fifo.Append(6, kErr, "half of this");
  fifo.Append(5, kOut, ", and this");
  std::array<std::byte, sizeof(OutputFifo::Piece) + 4> part;
  std::uint64_t left = 0;
  EXPECT_EQ(fifo.Take(part, &left), part.size());
  ByteWriter saved;
  fifo.Save(&saved);

  OutputFifo loaded;
  std::vector<bool> told;
  loaded.SetReady([&](bool ready) { told.push_back(ready); });
  ByteReader in(saved.bytes());
  ASSERT_TRUE(loaded.Load(&in).ok());
  EXPECT_EQ(in.left(), 0u);
  EXPECT_EQ(told, std::vector<bool>{true});
  loaded.Append(5, kOut, ", and more");
  EXPECT_EQ(TakeAll(&loaded), "e: of thiso:, and thiso:, and more");
  // The capacity came along.
  loaded.Append(5, kOut, std::string(1000, 'x'));
  EXPECT_EQ(TakeAll(&loaded), "");
}

TEST(OutputFifo, DamagedStateIsRefused) {
  OutputFifo fifo;
  fifo.SetCapacity(1, 100);
  fifo.Append(1, kOut, "some text");
  ByteWriter saved;
  fifo.Save(&saved);
  for (std::size_t keep = 0; keep < saved.bytes().size(); ++keep) {
    SCOPED_TRACE(keep);
    OutputFifo loaded;
    ByteReader in(saved.bytes().first(keep));
    EXPECT_FALSE(loaded.Load(&in).ok());
  }
  std::vector<std::byte> wrong(saved.bytes().begin(), saved.bytes().end());
  wrong[16] = std::byte{8};  // the capacity: less than what is there
  wrong[17] = std::byte{0};
  OutputFifo loaded;
  ByteReader in(wrong);
  EXPECT_FALSE(loaded.Load(&in).ok());
}

TEST(OutputFifo, PrintersRaceWithATaker) {
  OutputFifo fifo;
  constexpr int kEach = 2000;
  std::vector<std::thread> printers;
  for (int t = 0; t < 3; ++t) {
    printers.emplace_back([&fifo, t] {
      for (int i = 0; i < kEach; ++i) {
        fifo.Append(static_cast<std::uint64_t>(t), kOut, "x");
      }
    });
  }
  std::size_t seen = 0;
  const auto count = [&] {
    const std::string text = TakeAll(&fifo, 256);
    for (const char c : text) seen += c == 'x' ? 1 : 0;
  };
  for (int i = 0; i < 500; ++i) count();
  for (std::thread& printer : printers) printer.join();
  count();
  EXPECT_EQ(seen, 3u * kEach);
}

}  // namespace
}  // namespace pos
