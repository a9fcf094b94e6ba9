//! Layouts of files and default layouts of directories. Which OSTs are chosen is [`crate::placement`]'s business; which
//! components need them is decided here.

use sateen_types::op::MutationReply;
use sateen_types::{
    ComponentId, Credential, Fid, FsCode, FsError, FsResult, Layout, LayoutTemplate, Pattern, StripePattern,
};

use super::perm::{self, Access, access};
use super::{intents, tree};
use crate::command::Inputs;
use crate::placement;
use crate::store::codec::Record;
use crate::store::records::Inode;
use crate::store::{ReadTxn, Table, Txn, keys};

/// Layout of a file; `None` for what has none.
pub fn find(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Option<Layout>> {
    tx.get(Table::Layouts, &keys::fid(fid))?.map(|v| Layout::from_bytes(&v)).transpose()
}

/// The default layout set on this very directory.
pub fn own_template(tx: &dyn ReadTxn, dir: Fid) -> FsResult<Option<LayoutTemplate>> {
    tx.get(Table::DefaultLayouts, &keys::fid(dir))?.map(|v| LayoutTemplate::from_bytes(&v)).transpose()
}

/// What new files in `dir` get, and whether it was set on `dir` itself: the directory's own, else the root's, else
/// the built-in default.
pub fn inherited_template(tx: &dyn ReadTxn, dir: Fid) -> FsResult<(LayoutTemplate, bool)> {
    if let Some(own) = own_template(tx, dir)? {
        return Ok((own, true));
    }
    let root = if dir == Fid::ROOT { None } else { own_template(tx, Fid::ROOT)? };
    Ok((root.unwrap_or_default(), false))
}

/// Chooses OSTs for one component.
pub fn place_component(layout: &mut Layout, index: usize, inputs: &Inputs) -> FsResult<()> {
    let component = &mut layout.components[index];
    component.osts = placement::place(&inputs.osts, &component.striping, inputs.rotor.wrapping_add(index as u64))?;
    Ok(())
}

fn regular(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Inode> {
    let inode = tree::inode(tx, fid)?;
    if inode.is_dir() {
        return Err(FsError::new(FsCode::IsDirectory, format!("{fid} is a directory")));
    }
    if !inode.is_regular() {
        return Err(FsError::new(FsCode::Invalid, format!("{fid} is not a regular file and has no layout")));
    }
    Ok(inode)
}

/// The layout of a regular file, which has one.
pub fn of_file(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Layout> {
    regular(tx, fid)?;
    find(tx, fid)?.ok_or_else(|| FsError::new(FsCode::Internal, format!("regular file {fid} has no layout")))
}

/// OSTs for every component that overlaps the range and has none. The caller has the file open for writing, which
/// was checked when it was opened.
pub fn instantiate(tx: &mut dyn Txn, fid: Fid, offset: u64, length: u64, inputs: &Inputs) -> FsResult<MutationReply> {
    let mut layout = of_file(tx, fid)?;
    let end = offset.saturating_add(length);
    if end > layout.end() {
        return Err(FsError::new(
            FsCode::FileTooBig,
            format!("byte {end} of {fid} is beyond the end of its layout, {}", layout.end()),
        )
        .with_hint("give the file a layout whose last component ends at -1 (EOF)"));
    }
    intents::refuse_while_truncating(tx, fid)?;
    let missing: Vec<usize> = (0..layout.components.len())
        .filter(|i| layout.components[*i].extent.overlaps(offset, end) && !layout.components[*i].is_instantiated())
        .collect();
    for index in &missing {
        place_component(&mut layout, *index, inputs)?;
    }
    if !missing.is_empty() {
        layout.generation += 1;
        tx.put(Table::Layouts, keys::fid(fid), layout.to_bytes());
    }
    Ok(MutationReply::Layout(layout))
}

/// Another layout for a file without data. Its components get new numbers, so that no object of the old layout can be
/// taken for one of the new.
pub fn set_layout(
    tx: &mut dyn Txn,
    who: &Credential,
    fid: Fid,
    template: &LayoutTemplate,
    inputs: &Inputs,
) -> FsResult<MutationReply> {
    let mut inode = regular(tx, fid)?;
    access(&inode, who, Access::WRITE)?;
    if inode.size > 0 || inode.allocated > 0 {
        return Err(FsError::new(
            FsCode::Exists,
            format!("{fid} has data ({} bytes) and keeps its layout", inode.size),
        )
        .with_hint("set the layout of a new, empty file and copy the data"));
    }
    intents::refuse_while_truncating(tx, fid)?;
    let old = of_file(tx, fid)?;
    let highest = old.components.iter().map(|c| c.id.0).max().unwrap_or(0);
    let inherit = LayoutTemplate::plain(old.components.first().map_or(StripePattern::raid0(1), |c| c.striping.clone()));
    let mut layout = template.resolve(&inherit);
    layout.generation = old.generation + 1;
    for (component, id) in layout.components.iter_mut().zip(highest + 1..) {
        component.id = ComponentId(id);
    }
    place_component(&mut layout, 0, inputs)?;
    intents::destroy_objects(tx, fid, &old)?;
    tx.put(Table::Layouts, keys::fid(fid), layout.to_bytes());
    inode.attr_changed(inputs.now);
    tree::put_inode(tx, fid, &inode);
    Ok(MutationReply::Layout(layout))
}

/// Sets or removes a directory's default layout. For its owner and root.
pub fn set_default(
    tx: &mut dyn Txn,
    who: &Credential,
    fid: Fid,
    template: Option<&LayoutTemplate>,
    inputs: &Inputs,
) -> FsResult<MutationReply> {
    let mut dir = tree::directory(tx, fid)?;
    perm::owner(&dir, who)?;
    match template {
        Some(template) => {
            refuse_unplaceable(template)?;
            tx.put(Table::DefaultLayouts, keys::fid(fid), template.to_bytes());
        }
        None => tx.delete(Table::DefaultLayouts, keys::fid(fid)),
    }
    dir.attr_changed(inputs.now);
    tree::put_inode(tx, fid, &dir);
    Ok(MutationReply::Done)
}

/// A default that no create could follow is refused when it is set.
pub fn refuse_unplaceable(template: &LayoutTemplate) -> FsResult<()> {
    for component in &template.components {
        if component.striping.pattern != Pattern::Raid0 {
            return Err(FsError::new(
                FsCode::NotSupported,
                format!("this version has no layout pattern {:?}", component.striping.pattern),
            )
            .with_hint("use raid0"));
        }
        if let Some(pool) = &component.striping.pool {
            return Err(FsError::new(FsCode::Invalid, format!("OST pool {pool} does not exist"))
                .with_hint("leave the pool out of the layout"));
        }
    }
    Ok(())
}
