// From what an analysis saw to what a launch is computed with.
#include <algorithm>

#include "pos/cuda_impl/access/analysis.h"

namespace pos::access {
namespace {

constexpr std::size_t kManyTouches = 512;  // from here on without places
// Touches that are compared with another in the time of a statement.
constexpr std::size_t kTouchesPerStep = 8;

bool SameBase(const KernelTouch& a, const KernelTouch& b) {
  return a.variable == b.variable && a.added == b.added &&
         a.subtracted == b.subtracted && a.involved == b.involved;
}

// What `a` says of reads and writes, `b` says too.
bool Covers(const KernelTouch& b, const KernelTouch& a) {
  return SameBase(a, b) && (b.reads || !a.reads) && (b.writes || !a.writes) &&
         (b.atomic || !a.atomic) &&
         (b.expr == 0 || (a.expr == b.expr && b.bytes >= a.bytes));
}

void MergeInto(const KernelTouch& touch, std::vector<KernelTouch>* touches) {
  for (KernelTouch& known : *touches) {
    if (!SameBase(touch, known) || touch.expr != known.expr) continue;
    known.reads = known.reads || touch.reads;
    known.writes = known.writes || touch.writes;
    known.atomic = known.atomic || touch.atomic;
    known.bytes = std::max(known.bytes, touch.bytes);
    return;
  }
  touches->push_back(touch);
}

// Takes out what another one covers.
void Reduce(std::vector<KernelTouch>* touches) {
  std::vector<KernelTouch> kept;
  for (std::size_t i = 0; i < touches->size(); ++i) {
    bool covered = false;
    for (std::size_t j = 0; j < touches->size() && !covered; ++j) {
      covered = j != i && Covers((*touches)[j], (*touches)[i]) &&
                (j < i || !Covers((*touches)[i], (*touches)[j]));
    }
    if (!covered) kept.push_back((*touches)[i]);
  }
  *touches = std::move(kept);
}

}  // namespace

std::uint32_t Analysis::WordNumber(std::uint32_t offset) {
  std::vector<std::uint32_t>& words = result_.words;
  const auto at = std::find(words.begin(), words.end(), offset);
  if (at != words.end()) {
    return static_cast<std::uint32_t>(at - words.begin());
  }
  words.push_back(offset);
  return static_cast<std::uint32_t>(words.size() - 1);
}

// Copies the expression and what it is made of; 0 when there is no room.
std::uint32_t Analysis::AddExpr(ExprTable::Id id) {
  if (id == ExprTable::kAny) return 0;
  // Operands have smaller numbers: a list of all that is needed, ascending.
  std::vector<ExprTable::Id> needed{id};
  for (std::size_t i = 0; i < needed.size(); ++i) {
    const Expr& expr = exprs_[needed[i]];
    if (expr.op < ExprOp::kAdd) continue;
    for (const ExprTable::Id operand : {expr.a, expr.b}) {
      if (std::find(needed.begin(), needed.end(), operand) == needed.end()) {
        needed.push_back(operand);
      }
    }
    if (needed.size() > KernelAccess::kMaxExprs) return 0;
  }
  std::sort(needed.begin(), needed.end());
  std::erase_if(needed, [this](ExprTable::Id n) {
    return n == ExprTable::kAny || launch_exprs_.contains(n);
  });
  if (result_.exprs.size() + needed.size() > KernelAccess::kMaxExprs) return 0;
  for (const ExprTable::Id n : needed) {
    Expr expr = exprs_[n];
    if (expr.op >= ExprOp::kAdd) {
      expr.a = expr.a == ExprTable::kAny ? 0 : launch_exprs_.at(expr.a);
      expr.b = expr.b == ExprTable::kAny ? 0 : launch_exprs_.at(expr.b);
    }
    launch_exprs_.emplace(n, static_cast<std::uint32_t>(result_.exprs.size()));
    result_.exprs.push_back(expr);
  }
  return launch_exprs_.at(id);
}

bool Analysis::AddTouch(const KernelTouch& touch) {
  MergeInto(touch, &result_.touches);
  return result_.words.size() <= KernelAccess::kMaxWords &&
         result_.touches.size() <= 2 * kManyTouches;
}

// A name that several files of one program have is no way to find a variable.
bool Analysis::AddVariable(std::uint32_t variable, KernelTouch* touch) {
  const auto known = launch_variables_.find(variable);
  if (known != launch_variables_.end()) {
    touch->variable = known->second;
    return true;
  }
  const std::string& name = unit_.variables[variable].name;
  const auto number = static_cast<std::uint32_t>(result_.variables.size());
  result_.variables.push_back(name);
  launch_variables_.emplace(variable, number);
  touch->variable = number;
  return std::ranges::count(unit_.variables, name, &ptx::Variable::name) == 1;
}

void Analysis::Conclude() {
  result_.exprs.emplace_back();
  instruction_ = nullptr;
  if (result_.basis != AccessBasis::kProven) return;
  for (const Seen& seen : seen_) {
    // Every touch is compared with those before it.
    Charge(1 + result_.touches.size() / kTouchesPerStep);
    if (context_->steps_left == 0) return Doubt("too much code");
    KernelTouch touch;
    touch.reads = (seen.mode & kReads) != 0;
    touch.writes = (seen.mode & kWrites) != 0;
    touch.atomic = seen.mode == kAtomic;
    touch.bytes = seen.bytes;
    if (seen.variable != KernelTouch::kNoVariable &&
        !AddVariable(seen.variable, &touch)) {
      return Doubt("several variables have one name");
    }
    for (const auto w : seen.term.added.values()) {
      touch.added.Add(WordNumber(w));
    }
    for (const auto w : seen.term.subtracted.values()) {
      touch.subtracted.Add(WordNumber(w));
    }
    for (const auto w : seen.term.involved.values()) {
      touch.involved.Add(WordNumber(w));
    }
    touch.expr =
        result_.touches.size() < kManyTouches ? AddExpr(seen.term.offset) : 0;
    if (!AddTouch(touch)) return Doubt("too many parameters");
  }
  Reduce(&result_.touches);
  if (result_.touches.size() > KernelAccess::kMaxTouches) {
    std::vector<KernelTouch> anywhere;
    for (KernelTouch touch : result_.touches) {
      touch.expr = 0;
      MergeInto(touch, &anywhere);
    }
    result_.touches = std::move(anywhere);
  }
  if (result_.touches.size() > KernelAccess::kMaxTouches) {
    Doubt("too many different accesses");
  }
}

}  // namespace pos::access
